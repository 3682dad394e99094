"""STAR's update on CPUs as machine code: `native/star.cc`, compiled once on a machine by its own C++ compiler.

XLA makes dozens of programs of an update and needs twice the time. Without a compiler, for float64 and for derivatives
there is the plain path, which this equals to rounding.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from learned_opt import alignment, cache, errors, features, orthogonal, statistics, steps
from learned_opt import network as networks
from learned_opt import nominal as directions
from learned_opt.base import Theta
from learned_opt.statistics import Decays, Statistics
from learned_opt.steps import Preconditioner, Result

if TYPE_CHECKING:
    from learned_opt.star import Star

SWITCH = "LEARNED_OPT_NATIVE"  # an environment variable: 0 for the plain path
SOURCES = Path(__file__).parent / "native"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared", "-w")
HIDDEN, HEADS = (4, 4), 4  # of the network it is written for


class Layout(NamedTuple):
    """Of each matrix of a stack, zeros below rank 2; whether the largest dimension is that of columns."""

    lines: int
    columns: int
    rows_last: bool


def suits(star: "Star", param: jax.Array) -> bool:
    """Whether it can: float32, the usual network, no averages over heads, the two largest dimensions last."""
    ours = star.hidden == HIDDEN and not steps.averaged(star) and param.dtype == jnp.float32 and param.size > 0
    return ours and _layout(param.shape) is not None and target() is not None


def _layout(shape: tuple[int, ...]) -> Layout | None:
    """None where the two largest dimensions are not the last."""
    second = statistics.second_axis(shape)
    if second is None:
        return Layout(0, 0, False)
    largest = statistics.largest_axis(shape)
    first, last = sorted((second, largest))
    between = shape[first + 1 : last] + shape[last + 1 :]
    return None if any(n > 1 for n in between) else Layout(shape[first], shape[last], last == largest)


def scalars(star: "Star", network: Theta, decay: Decays, count: jax.Array) -> jax.Array:
    """What is the same for all tensors: `Scalars` in native/update.h."""
    t = count.astype(jnp.float32)
    keep = jnp.concatenate([decay.momenta, decay.second_moment[None], decay.factored])
    unbias = 1 / (1 - keep**t) if star.bias_correction else jnp.ones_like(keep)
    time = features.time_features(count, t.dtype)
    # Scales are known, and folded in, only where the sums over a tensor are.
    first, second, last = networks.folded(network, jnp.ones(features.PER_PARAMETER, t.dtype), time)
    missing = (0, HEADS - len(star.heads))
    parts = [
        *(keep, unbias, star.early_share(t), *first, second.weights.T, second.biases),
        *(jnp.pad(last.weights.T, (missing, (0, 0))), jnp.pad(last.biases, missing)),
    ]
    return jnp.concatenate([jnp.ravel(x) for x in parts])


def propose(
    star: "Star", flat: jax.Array, apart: bool, grad: jax.Array, param: jax.Array, before: Statistics
) -> Result:
    """What is added to a tensor, what decays of it if that is to be `apart`, the products or (), and new statistics.

    `flat` are the `scalars`.
    """
    layout, name = _layout(param.shape), target()
    assert layout is not None, "see suits"
    assert name is not None, "see suits"
    apart = apart and star.weight_decay > 0
    orthogonally = star.nominal == "orthogonal" and orthogonal.suits(param.shape)
    nominal = "adam-aggmo" if star.nominal == "orthogonal" and not orthogonally else star.nominal
    nothing = jnp.zeros(1, jnp.float32)  # for an array that is not there
    cols = before.cols if layout.lines else nothing
    given = (flat, grad, param, before.momenta, before.second_moment, before.rows, cols)
    made = (grad, grad if apart else nothing, grad if orthogonally else nothing, *given[3:], jnp.zeros(7, jnp.float32))
    call = jax.ffi.ffi_call(
        name,
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in made],
        vmap_method="broadcast_all",
        input_output_aliases={i: i for i in range(3, 7)},
    )
    switches = (
        *(param.size, *layout, get_args(directions.Nominal).index(nominal)),
        *(get_args(Preconditioner).index(star.preconditioner), star.learned_magnitude, star.aligned, apart),
    )
    numbers = (
        *(star.step_scale, star.nominal_scale, star.exponent_scale, star.weight_decay, star.clipping_threshold),
        *(orthogonal.length(param.shape) if orthogonally else 1.0, star.feature_eps),
        *(star.second_moment_eps, star.preconditioner_eps),
    )
    update, decayed, magnitude, momenta, second_moment, rows, cols, products = call(
        *given, whole=np.asarray(switches, np.int64), real=np.asarray(numbers, np.float32)
    )
    if orthogonally:
        mean = directions.mean(momenta * flat[7:10].reshape(3, *(1 for _ in param.shape)))
        update = update + magnitude * orthogonal.direction(mean, star.feature_eps)
    stats = Statistics(momenta, second_moment, rows, cols if layout.lines else ())
    return update, decayed if apart else 0.0, alignment.gathered(products) if star.aligned else (), stats


def target() -> str | None:
    """The name under which XLA knows the machine code; None where it is switched off or cannot be made."""
    return _made()[0]


def status() -> str:
    """What makes STAR's updates here: the machine code, or XLA and why."""
    return _made()[1]


@functools.cache
def _made() -> tuple[str | None, str]:
    if jax.default_backend() != "cpu":
        return None, f"XLA, for {jax.default_backend()}"
    if os.environ.get(SWITCH) == "0":
        return None, f"XLA, as {SWITCH} is 0"
    found = compiler()
    if found is None:
        return None, "XLA, as there is no C++ compiler"
    try:
        path = compiled(found)
        handler = ctypes.CDLL(str(path)).LearnedOptStar
    except (OSError, subprocess.SubprocessError, errors.UsageError) as error:
        warnings.warn(f"STAR's updates are made by XLA, as {found} could not compile them: {error}", stacklevel=2)
        return None, f"XLA, as {found} failed"
    # The name, and with it every program's text, says which code it is.
    name = f"learned_opt_{path.stem}"
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
    return name, f"machine code, {path.stem}"


def compiler() -> str | None:
    """The C++ compiler of this machine, if it has one."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def compiled(command: str) -> Path:
    """The library by this compiler, from the cache folder or made there: its name stands for all that is in it."""
    include = f"-I{jax.ffi.include_dir()}"
    machine = _output(command, *FLAGS, "-E", "-v", "-x", "c++", os.devnull)
    sources = [source.read_bytes() for source in sorted(SOURCES.iterdir())]
    content = b"".join([machine.encode(), jaxlib.__version__.encode(), *sources])
    path = cache.cache_dir() / f"star_{hashlib.sha256(content).hexdigest()[:16]}.so"
    if not path.exists():
        cache.folder(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            _output(command, *FLAGS, include, str(SOURCES / "star.cc"), "-o", str(made))
            os.replace(made, path)
    return path


def _output(*command: str) -> str:
    """What it prints.

    Raises:
        SubprocessError: it failed, or took minutes.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        raise subprocess.SubprocessError(next((line for line in lines if "error" in line), lines[-1]))
    return done.stdout + done.stderr
