"""STAR's machine code against the plain path, which is what there is without a C++ compiler."""

import functools
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import Star, native

# Terms of comparable size, so that none hides the others' errors.
SCALES: dict[str, Any] = {"step_scale": 0.03, "nominal_scale": 0.02, "exponent_scale": 0.5}
OPTIONS: dict[str, dict[str, Any]] = {
    "published": {"weight_decay": 0.1},
    "aligned": {"weight_decay": 0.1, "aligned": True, "preconditioner": "rms", "clipping_threshold": 0.5},
    "orthogonal": {"nominal": "orthogonal", "preconditioner": "rms", "early_decay": 0.1, "relative": True},
    "bare": {"weight_decay": 0.0, "nominal": "none", "learned_magnitude": False, "bias_correction": False},
    "sgd": {"nominal": "sgd", "preconditioner": "none"},
    "momentum": {"nominal": "momentum"},
    "aggmo": {"nominal": "aggmo"},
    "adam": {"nominal": "adam", "clipping_threshold": 0.5},
}
# Lines shorter and longer than a vector, the largest dimension first and last, stacks, chunks; below rank 2; and
# what it leaves to XLA, as its two largest dimensions are not the last.
SHAPES = [
    (64, 32),
    (32, 10),
    (10, 70),
    (3, 3, 20, 33),
    (2, 3, 40, 17),
    (1, 5),
    (900, 70),
    (9000,),
    (10,),
    (),
    (20, 3, 3),
]

pytestmark = [
    pytest.mark.skipif(native.target() is None, reason="no C++ compiler, or no CPU"),
    pytest.mark.usefixtures("quick_programs"),
]


def trained(star: Star, shapes: list[tuple[int, ...]], steps: int = 4) -> Any:
    """Parameters, updates and state after some steps with gradients of all sizes, some of them zero."""
    key = jax.random.key(0)
    transform = star.transform(jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), star.init(key)))
    params = [jax.random.normal(jax.random.fold_in(key, i), shape) for i, shape in enumerate(shapes)]
    state, updates, update = transform.init(params), None, jax.jit(transform.update)
    for step in range(steps):
        keys = [jax.random.fold_in(key, 100 * step + i) for i in range(len(shapes))]
        grads = [jnp.maximum(jax.random.normal(k, x.shape), -0.5) + 0.5 for k, x in zip(keys, params, strict=True)]
        updates, state = update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, updates, state


def assert_close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Relative to the largest number of each array."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(np.abs(b).max()))


@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_plain_path(options: str, plainly: Callable[..., Any]) -> None:
    star = Star(**SCALES | OPTIONS[options])
    shapes = SHAPES if options == "aligned" else SHAPES[:2] + SHAPES[-3:-2]
    assert_close(trained(star, shapes), plainly(trained, star, shapes))


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What was made is made again, until the test ends: XLA takes each library once."""
    return lambda: monkeypatch.setattr(native, "_made", functools.cache(native._made.__wrapped__))


@pytest.fixture
def compiled_for(monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]) -> Callable[[str], None]:
    """Makes the machine code for another processor."""

    def compile_for(machine: str) -> None:
        flags = [f"-march={machine}" if flag == "-march=native" else flag for flag in native.FLAGS]
        monkeypatch.setattr(native, "FLAGS", tuple(flags))
        forget()

    return compile_for


@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="another machine")
@pytest.mark.parametrize("machine", ["x86-64-v3", "x86-64"])
def test_equals_it_on_older_processors(
    machine: str, compiled_for: Callable[[str], None], plainly: Callable[..., Any]
) -> None:
    """Whose vectors have eight numbers, or four and no fused products."""
    if machine != "x86-64" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor is older")
    usual = native.target()
    compiled_for(machine)
    assert native.target() not in (None, usual)
    star = Star(**SCALES | OPTIONS["aligned"])
    assert_close(trained(star, SHAPES), plainly(trained, star, SHAPES))


def test_stacks_and_threads_change_no_bit() -> None:
    """The update of one large tensor is shared among threads, that of a stack is not within its members."""
    star = Star(**SCALES | OPTIONS["aligned"])
    transform = star.transform(star.init(jax.random.key(1)))
    params, grads = ({"w": jax.random.normal(jax.random.key(i), (600, 200))} for i in range(2))
    alone = jax.jit(transform.update)(grads, transform.init(params), params)
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), (grads, transform.init(params), params))
    together = jax.jit(jax.vmap(transform.update))(*twice)
    # What is not in it, such as the controller, XLA may make otherwise for a stack.
    for a, b in zip(jax.tree.leaves(alone[1].statistics), jax.tree.leaves(together[1].statistics), strict=True):
        np.testing.assert_array_equal(np.stack([a, a]), b)


def test_what_is_not_finite_stays_so(plainly: Callable[..., Any]) -> None:
    """One such gradient is in every sum over its tensor."""
    star = Star(**SCALES)
    transform = star.transform(star.init(jax.random.key(0)))
    params = {"w": jnp.ones((8, 40)), "b": jnp.ones(40)}

    def updates(bad: float) -> Any:
        grads = {"w": jnp.ones((8, 40)).at[3, 30].set(bad), "b": jnp.ones(40)}
        return jax.device_get(jax.jit(lambda *args: transform.update(*args)[0])(grads, transform.init(params), params))

    for bad in (np.nan, np.inf):
        found, expected = updates(bad), plainly(updates, bad)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b)), found, expected)
        assert not np.isfinite(found["w"]).any()
        assert np.isfinite(found["b"]).all()


def test_derivatives_are_those_of_the_plain_path(plainly: Callable[..., Any], quick_jit: Any) -> None:
    """Reverse and forward mode, through two updates."""
    star = Star(**SCALES)
    params, theta = {"w": jnp.ones((5, 7)), "b": jnp.ones(7)}, star.init(jax.random.key(0))

    def loss(theta: Any) -> jax.Array:
        transform, moved = star.transform(theta), params
        state = transform.init(params)
        for _ in range(2):
            updates, state = transform.update(jax.tree.map(jnp.sin, moved), state, moved)
            moved = jax.tree.map(jnp.add, moved, updates)
        return moved["w"].sum() + (moved["b"] ** 2).sum()

    def slopes() -> Any:
        tangent = jax.tree.map(jnp.ones_like, theta)
        return quick_jit(jax.grad(loss))(theta), quick_jit(lambda t: jax.jvp(loss, (t,), (tangent,)))(theta)

    assert_close(slopes(), plainly(slopes))


@pytest.mark.parametrize(
    ("dtype", "platform", "calls"), [("float32", "cpu", 2), ("float32", "cuda", 0), ("bfloat16", "cpu", 2)]
)
def test_is_chosen_on_cpus(dtype: str, platform: str, calls: int) -> None:
    """State, and what is computed, is float32 for narrower parameters."""
    star = Star()
    transform = star.transform(star.init(jax.random.key(0)))
    params = {"w": jnp.ones((8, 40), dtype), "b": jnp.ones(40, dtype)}
    traced = jax.jit(transform.update).trace(params, transform.init(params), params)
    assert traced.lower(lowering_platforms=(platform,)).as_text().count(f"@{native.target()}") == calls


def test_float64_and_other_networks_are_left_to_xla() -> None:
    with jax.enable_x64(True):
        assert not native.suits(Star(), jnp.ones((8, 40), jnp.float64))
    for star in (Star(hidden=(8, 8)), Star(normalised=True), Star(average_magnitude=True)):
        assert not native.suits(star, jnp.ones((8, 40)))


def test_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And found in the cache folder by the next process, with nothing else left there."""
    monkeypatch.setenv("LEARNED_OPT_CACHE", str(tmp_path / "cache"))
    compiler = native.compiler()
    made = native.compiled(compiler)
    assert list((tmp_path / "cache").iterdir()) == [made]
    run = subprocess.run
    seen: list[Any] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: seen.append(command) or run(command, **options))
    assert native.compiled(compiler) == made
    assert not any("-o" in command for command in seen)


def test_without_it_there_is_the_plain_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    """Switched off, no compiler, and one that cannot compile, which is said."""
    monkeypatch.setenv("LEARNED_OPT_CACHE", str(tmp_path / "cache"))
    forget()
    with monkeypatch.context() as patch:
        patch.setenv(native.SWITCH, "0")
        assert (native.target(), native.status()) == (None, "XLA, as LEARNED_OPT_NATIVE is 0")
    forget()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda _: None)
        assert (native.target(), native.status()) == (None, "XLA, as there is no C++ compiler")
    forget()
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'fatal error: no such thing' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(broken))
    with pytest.warns(UserWarning, match="could not compile them: fatal error: no such thing"):
        assert native.target() is None
    star = Star()
    transform = star.transform(star.init(jax.random.key(0)))
    params = {"w": jnp.ones((8, 40))}
    update = functools.partial(jax.jit(transform.update), params, transform.init(params))
    assert np.isfinite(update(params)[0]["w"]).all()
