"""Hypergradients of whole runs: forward against reverse and against the published recursions, memory, and the rest."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt import sensitivity
from learned_opt.evaluate.reproduce import fds_identities
from learned_opt.evaluate.reproduce.teacher_task import TeacherTask, teacher_task
from learned_opt.meta_train import cost
from learned_opt.meta_train.hypergradient import STAGES, WholeRun
from learned_opt.schedules import Schedule, ScheduledStar

SGD = {"learning_rate": (0.3, 0.2, 0.1), "momentum": (0.8,), "weight_decay": (1e-4,)}


def sgd_run(steps: int, dtype: str = "float64", **options: Any) -> tuple[WholeRun, TeacherTask, Any]:
    optimizer = Schedule(windows=(3, 1, 1), steps=steps)
    theta = {name: jnp.asarray(values, dtype) for name, values in SGD.items()}
    return WholeRun(optimizer=optimizer, **options), teacher_task(dtype), theta


def relative(found: Any, expected: Any) -> float:
    found, expected = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(
    ("steps", "dtype", "tolerance"),
    [(50, "float64", 1e-10), (50, "float32", 1e-5), pytest.param(200, "float64", 1e-10, marks=pytest.mark.slow)],
)
def test_fds_1_forward_is_reverse(steps: int, dtype: str, tolerance: float, quick_jit: Any) -> None:
    with jax.enable_x64(dtype == "float64"):
        run, task, theta = sgd_run(steps, dtype)
        forward, reverse = (quick_jit(f)(task, theta, jax.random.key(3)) for f in (run.forward, run.reverse))
        np.testing.assert_allclose(forward.loss, reverse.loss, rtol=1e-5)
        assert all(np.abs(g).min() > 0 for g in forward.gradient.values())
        assert relative(forward.gradient, reverse.gradient) < tolerance


def test_fds_2_memory_of_forward_mode_does_not_grow(x64: None, quick_jit: Any) -> None:
    """Temporary bytes of the compiled program, 5 hyperparameters."""

    def temporary(steps: int, mode: str) -> int:
        run, task, theta = sgd_run(steps)
        program = quick_jit(getattr(run, mode)).lower(task, theta, jax.random.key(0)).compile()
        return program.memory_analysis().temp_size_in_bytes

    short, long = temporary(100, "forward"), temporary(10_000, "forward")
    assert long <= 1.25 * short
    assert temporary(10_000, "reverse") >= 50 * temporary(100, "reverse")


def test_fds_3_the_published_recursions(x64: None, quick_jit: Any) -> None:
    """Z = dw / dlam and C = dv / dlam for each kind of hyperparameter, written out as published."""
    found, key = fds_identities.case(6), jax.random.key(3)
    gradient = quick_jit(found.run.forward)(found.task, found.theta, key).gradient
    assert relative(gradient, fds_identities.published(found, key)) < 1e-10


@pytest.mark.parametrize("name", ["adamw", pytest.param("star", marks=pytest.mark.slow)])
def test_any_optimizer_has_hypergradients(name: str, x64: None, quick_jit: Any) -> None:
    """AdamW's betas and decay, and the heads of STAR: forward mode is backpropagation again."""
    steps = 6
    if name == "adamw":
        optimizer = Schedule(base="adamw", windows=(3, 1, 2), steps=steps)
        theta = {"learning_rate": [0.01, 0.02, 0.01], "b1": [0.9], "weight_decay": [0.01, 0.02]}
        theta = jax.tree.map(jnp.asarray, theta, is_leaf=lambda x: isinstance(x, list))
    else:
        optimizer = ScheduledStar(windows=(2, 1), steps=steps)
        theta = jax.tree.map(lambda x: x.astype(jnp.float64), optimizer.init(jax.random.key(0)))
    run, task = WholeRun(optimizer=optimizer, evaluations=1), teacher_task("float64")
    forward, reverse = (quick_jit(f)(task, theta, jax.random.key(3)) for f in (run.forward, run.reverse))
    assert set(forward.gradient) == set(optimizer.names)
    assert relative(forward.gradient, reverse.gradient) < 1e-10


def test_columns_join_when_their_window_starts(x64: None) -> None:
    run, _, theta = sgd_run(30)
    order, stages = run.stages(theta)
    assert stages == [(0, 10, 3), (10, 20, 4), (20, 30, 5)]
    assert sorted(order) == list(range(5))
    many = WholeRun(optimizer=Schedule(windows=(40, 1, 1), steps=400))
    _, stages = many.stages({"learning_rate": jnp.ones(40), "momentum": jnp.ones(1), "weight_decay": jnp.ones(1)})
    assert len(stages) == STAGES
    assert stages[-1] == (350, 400, 42)
    assert sum((last - first) * active for first, last, active in stages) < 0.6 * 400 * 42


def test_clamping_is_counted_and_changes_the_gradient(x64: None, quick_jit: Any) -> None:
    run, task, theta = sgd_run(20)
    exact = quick_jit(run.forward)(task, theta, jax.random.key(3))
    found = {}
    for limit in (1e-3, 1e9):
        clamped = sgd_run(20, clamp=limit)[0]
        found[limit] = quick_jit(clamped.forward)(task, theta, jax.random.key(3))
    assert exact.clamped == 0
    assert found[1e9].clamped == 0
    np.testing.assert_allclose(found[1e9].gradient["learning_rate"], exact.gradient["learning_rate"], rtol=1e-10)
    assert 0.05 < found[1e-3].clamped < 1
    assert relative(found[1e-3].gradient, exact.gradient) > 1e-3


def test_the_share_of_clamped_entries_is_exact() -> None:
    """w' = w - a h w with h = (1, 100): of two entries of h times dw / da one is beyond 10 from the second step on."""
    curvatures = jnp.array([1.0, 100.0])

    def step(state: Any, rate: jax.Array) -> Any:
        w, clamp_state = state
        grads, clamp_state = sensitivity.clamp(10.0).update(curvatures * w, clamp_state)
        return (w - rate * grads, clamp_state), (), None

    rate = jnp.asarray(1e-3)
    state = jnp.ones(2), sensitivity.clamp(10.0).init(None)
    sensitivities = sensitivity.start(state, rate)
    for _ in range(3):
        state, sensitivities, _, _ = sensitivity.advance(step, state, sensitivities, rate)
    np.testing.assert_allclose(sensitivities[1].share, [0.5 + 0.5])
    assert state[1].share == 0


def test_without_hessian_is_the_sum_of_displacements(x64: None) -> None:
    """Plain SGD: nothing but the steps themselves depends on the logarithm of the rate."""
    curvatures = jnp.array([1.0, 3.0])
    transform = optax.chain(sensitivity.without_hessian(), optax.identity())

    def step(w: jax.Array, log_rate: jax.Array) -> Any:
        grads, _ = transform.update(curvatures * w, transform.init(w))
        return w - jnp.exp(log_rate) * grads, (), None

    w, log_rate = jnp.ones(2), jnp.log(0.1)
    sensitivities, start = sensitivity.start(w, log_rate), w
    for _ in range(5):
        w, sensitivities, _, _ = sensitivity.advance(step, w, sensitivities, log_rate)
    np.testing.assert_allclose(sensitivities[0], w - start, rtol=1e-12)


def test_predicted_operations_are_those_of_the_closed_form() -> None:
    """Matrix products of the student: a = 2 B 20 32 operations and b = 2 B 32 10; the rest of it is a tenth.

    A gradient is 2 a + 3 b, for the first layer needs no gradient of its inputs. A tangent of it, or its transpose, is
    2 a + 6 b, as all but the inputs move. Forward mode pushes as many tangents as columns are under way, here 3, 4 and
    5 in the thirds of the run; reverse mode transposes once.
    """
    run, task, theta = sgd_run(999, "float32")
    a, b = 2 * task.batch_size * 20 * 32, 2 * task.batch_size * 32 * 10
    found = cost.predict(run, task, theta)
    forward = 999 * ((2 * a + 3 * b) + (3 + 4 + 5) / 3 * (2 * a + 6 * b))
    reverse = 999 * ((2 * a + 3 * b) + (2 * a + 6 * b))
    assert 1 < found.forward.flops / forward < 1.2
    assert 1 < found.reverse.flops / reverse < 1.2
    state = 2 * 1002 * 4 + 4  # weights and momenta, and the number of the step
    assert found.forward.bytes == pytest.approx(6 * state, rel=0.01)


def test_the_cheaper_mode_that_fits_is_chosen(quick_jit: Any) -> None:
    """Reverse mode, by its operations; where it would keep more than a gigabyte, by XLA's count as well, forward."""
    for steps, choice in ((1000, "reverse"), (20_000, "forward")):
        run, task, theta = sgd_run(steps, "float32")
        prediction = cost.predict(run, task, theta)
        program = quick_jit(run.reverse).lower(task, theta, jax.random.key(0)).compile()
        measured = program.memory_analysis().temp_size_in_bytes
        assert 0.5 < prediction.reverse.bytes / measured < 2
        assert prediction.reverse.flops < prediction.forward.flops
        assert (measured > cost.MEMORY) == (choice == "forward")
        assert prediction.choice() == choice
