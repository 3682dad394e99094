"""The exact recursion of the noisy quadratic: against the sampled task, and against what is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt.evaluate import noisy_quadratic as exact
from learned_opt.evaluate.reproduce import offline_schedules as offline
from learned_opt.evaluate.reproduce import quadratic_schedules
from learned_opt.evaluate.reproduce import short_horizon_bias as reproduction


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_recursion_is_the_sampled_task_in_expectation() -> None:
    """SGD with momentum on a decaying rate; a momentum off by 2 % would be seen."""
    relative, z = reproduction.sampled_against_exact(20_000, 60, seed=1)
    assert z < 4
    assert relative < 0.05


def test_one_step_by_hand() -> None:
    spectrum = exact.Spectrum(np.array([2.0]), np.array([0.5]))
    moments = exact.Moments(np.array([3.0]), np.array([-1.0]), np.array([2.0]))
    rate, momentum = 0.1, 0.9
    # v' = 0.9 v - 0.2 (w - c); w' = w + v'
    velocity = 0.81 * 2.0 - 2 * 0.9 * 0.2 * -1.0 + 0.04 * (3.0 + 0.5)
    cross = 0.9 * -1.0 - 0.2 * 3.0 + velocity
    weight = 3.0 + 2 * (0.9 * -1.0 - 0.2 * 3.0) + velocity
    np.testing.assert_allclose(exact.step(spectrum, moments, rate, momentum), [[weight], [cross], [velocity]])
    assert exact.excess(spectrum, moments) == 3.0


def test_greedy_is_the_minimum_of_one_step() -> None:
    """Against Newton's method on the loss after the step, from moments in the middle of a run."""
    spectrum, start = exact.worst_case(7)
    moments, _ = exact.follow(spectrum, start, jnp.full(5, 0.05), jnp.full(5, 0.5))

    def loss(x):
        return exact.excess(spectrum, exact.step(spectrum, moments, x[0], x[1]))

    x = jnp.zeros(2)
    found = x - jnp.linalg.solve(jax.hessian(loss)(x), jax.grad(loss)(x))  # the loss is quadratic in the pair
    np.testing.assert_allclose(jnp.stack(exact.greedy(spectrum, moments)), found, rtol=1e-10)


def test_identities_of_the_paper() -> None:
    rows = list(reproduction.identities(seed=0))
    assert {row.id for row in rows} == {"SHB-0", "SHB-4", "SHB-5"}
    for row in rows:
        assert row.passed, row


def test_greedy_schedule_is_the_published_one() -> None:
    found = quadratic_schedules.greedy()
    assert 63.85 <= found.final <= 63.87
    np.testing.assert_allclose(found.rates[[0, -1]], [0.11862, 0.0023795], rtol=1e-4)


def test_cap() -> None:
    np.testing.assert_allclose(exact.largest_rate(*exact.worst_case()), 20 / 101, rtol=1e-5)


def test_the_inner_problem_of_the_estimators_is_the_recursion() -> None:
    """`ExpectedQuadratic` under `InverseTime` takes the course that the objective of the schedules takes."""
    theta = offline.start()
    task, transform = offline.ExpectedQuadratic(), offline.InverseTime().transform(theta)
    params = task.init(jax.random.key(0))
    state, losses = transform.init(params), []
    for _ in range(5):
        updates, state = transform.update(jax.grad(task.loss)(params, None, ()), state, params)
        params = optax.apply_updates(params, updates)
        losses.append(task.loss(params, None, ()))
    np.testing.assert_allclose(losses, offline.course(theta, 5), rtol=1e-12)


def test_short_horizons_choose_fast_decays() -> None:
    """The published figure at horizon 10: a decay of 290 where 5.7 would be right."""
    found = offline.at_horizon(10)
    np.testing.assert_allclose([found.decay, found.final], [290, 27.9], rtol=0.01)
