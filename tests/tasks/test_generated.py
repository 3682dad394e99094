"""Tasks without a data set, against what is known of them: minima, optima, exact solutions, laws of motion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt.errors import UsageError
from learned_opt.tasks import control, physics
from learned_opt.tasks.base import SPLITS
from learned_opt.tasks.functions import FUNCTIONS, FunctionFamily
from learned_opt.tasks.graphs import NodeClassification, block_model
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.regression import Regression

KEY = jax.random.key(0)


@pytest.mark.parametrize(("name", "dimension"), [(name, 2 + 2 * (i % 3)) for i, name in enumerate(FUNCTIONS)])
def test_functions_are_least_at_their_minimiser(name, dimension, quick_jit):
    family, value = FunctionFamily(name, dimension), FUNCTIONS[name].value

    @quick_jit
    def measured():
        starts = jax.vmap(family.init)(jax.random.split(KEY, 500))
        points = jnp.concatenate([starts, family.minimiser + 0.1 * starts])
        losses = jax.vmap(lambda x: family.loss(x, KEY, family.sample_batch(KEY, "train")))(points)
        best, slope = jax.value_and_grad(value)(family.minimiser)
        return starts, losses.min(), best, slope, jax.vmap(value)(starts).mean() / family.loss_scale, family.loss_scale

    starts, least, best, slope, relative, scale = jax.device_get(measured())
    assert np.abs(starts).max() == pytest.approx(FUNCTIONS[name].reach, rel=0.02)
    assert float(best) == pytest.approx(0, abs=1e-5 * float(scale))
    assert least >= -1e-5 * scale
    np.testing.assert_allclose(slope, 0, atol=1e-3)
    assert float(relative) == pytest.approx(1, rel=0.5)


# Published values (Surjanovic and Bingham's library of test functions), less the published minimum.
@pytest.mark.parametrize(
    ("name", "point", "expected"),
    [
        ("rosenbrock", (-1.2, 1.0), 24.2),
        ("rastrigin", (1.0, 2.0), 5.0),
        ("styblinski_tang", (0.0, 0.0), 2 * 39.16616570377142),
        ("beale", (1.0, 1.0), 1.5**2 + 2.25**2 + 2.625**2),
        ("ackley", (1.0, 1.0), 20 - 20 * np.exp(-0.2)),
        ("sphere", (1.0, 2.0), 5.0),
        ("griewank", (0.0, np.pi * 2**0.5), 2 + 2 * np.pi**2 / 4000),
        ("levy", (1.0, 5.0), 1.0),
    ],
)
def test_functions_are_those_of_that_name(name, point, expected):
    assert float(FUNCTIONS[name].value(jnp.asarray(point))) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_noisy_about_the_right_one():
    family = FunctionFamily("sphere", 4, noise=0.1)
    keys = jax.random.split(KEY, 4000)
    grads = jax.vmap(lambda k: jax.grad(family.loss)(jnp.ones(4), k, family.sample_batch(k, "train")))(keys)
    np.testing.assert_allclose(grads.mean(0), 2, atol=0.015)
    np.testing.assert_allclose(grads.std(0), 0.2, rtol=0.06)


@pytest.mark.parametrize(
    ("given", "message"),
    [(("rosenbrok", 2), "did you mean rosenbrock"), (("beale", 3), "an even number"), (("sphere", 1), "from 2")],
)
def test_functions_that_do_not_exist_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        FunctionFamily(*given)


def test_linear_regression_has_its_optimum_by_normal_equations():
    family = Regression("linear", dimension=5, batch_size=50_000)
    truth = family.sample(KEY)
    task = family.task(truth)
    features, targets = task.sample_batch(KEY, "train")
    solved = np.linalg.solve(np.asarray(features.T @ features), np.asarray(features.T @ targets))
    np.testing.assert_allclose(solved, truth, atol=0.01)
    best = float(task.loss({"weights": solved}, KEY, (features, targets)))
    assert best == pytest.approx(0.5 * 0.1**2, rel=0.03)
    assert best <= float(task.loss({"weights": truth}, KEY, (features, targets)))
    zero = task.loss({"weights": jnp.zeros(5)}, KEY, (features, targets))
    assert float(zero) == pytest.approx(float(task.loss_scale), rel=0.05)
    variances = np.asarray(features).var(0)
    assert variances.max() / variances.min() == pytest.approx(10, rel=0.05)
    assert variances.mean() == pytest.approx(1, rel=0.02)


def test_logistic_regression_is_optimal_at_the_truth():
    family = Regression("logistic", dimension=5, batch_size=200_000)
    truth = family.sample(KEY)
    task = family.task(truth)
    batch = task.sample_batch(KEY, "train")
    np.testing.assert_allclose(jax.grad(task.loss)({"weights": truth}, KEY, batch)["weights"], 0, atol=0.004)
    assert float(task.loss({"weights": jnp.zeros(5)}, KEY, batch)) == pytest.approx(np.log(2), rel=1e-5)
    p = 1 / (1 + np.exp(-np.asarray(batch[0] @ truth, np.float64)))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()
    assert float(task.loss({"weights": truth}, KEY, batch)) == pytest.approx(entropy, abs=0.005)


@pytest.mark.parametrize("equation", physics.EQUATIONS)
def test_exact_solutions_obey_their_equation(equation):
    family = physics.Physics(equation=equation, batch_size=256)
    loss = jax.jit(lambda u, batch: family.field_loss(u, batch), static_argnums=0)
    exact = physics.EQUATIONS[equation].solution
    for split in SPLITS:
        assert loss(exact, family.sample_batch(KEY, split)) < 1e-9
    batch = family.sample_batch(KEY, "train")
    assert loss(lambda x: 1.1 * exact(x) + 0.01, batch) > 1e-4
    assert float(loss(lambda x: 0 * x[0], batch)) == pytest.approx(family.loss_scale, rel=0.25)


def test_boundary_points_lie_on_every_face_but_the_end_of_time():
    _, boundary = physics.Physics(equation="heat", batch_size=300).sample_batch(KEY, "train")
    left, right, start = boundary[:, 0] == 0, boundary[:, 0] == 1, boundary[:, 1] == 0
    assert np.all(left | right | start)
    assert min(left.sum(), right.sum(), start.sum()) > 60
    ends = physics.Physics(equation="poisson", batch_size=300).sample_batch(KEY, "train")[1]
    assert set(np.asarray(ends).ravel()) == {0.0, 1.0}


def test_the_block_model_is_joined_inside_its_blocks():
    graph = block_model()
    joined = (graph.adjacency > 0) & ~np.eye(128, dtype=bool)
    same = graph.labels[:, None] == graph.labels
    assert joined[same].mean() * 32 / 31 == pytest.approx(0.3, abs=0.03)
    assert joined[~same].mean() == pytest.approx(0.05, abs=0.01)
    degrees = 1 + joined.sum(1)
    np.testing.assert_allclose(
        graph.adjacency @ np.sqrt(degrees), np.sqrt(degrees), rtol=1e-5
    )  # its largest eigenvalue
    assert sorted(np.concatenate(list(graph.nodes.values()))) == list(range(128))
    np.testing.assert_array_equal(graph.features, block_model().features)
    family = NodeClassification(graph)
    for split in SPLITS:
        assert set(np.asarray(family.sample_batch(KEY, split))) <= set(graph.nodes[split])


def test_graph_convolutions_against_numpy():
    family = NodeClassification(block_model())
    task = family.task(jnp.asarray(1))
    params, batch = jax.tree.map(lambda p: p + 0.1, task.init(KEY)), task.sample_batch(KEY, "valid")
    p, graph = jax.tree.map(np.asarray, params), family.data
    x = np.tanh(graph.adjacency @ (graph.features @ p["hidden"]["kernel"] + p["hidden"]["bias"]))
    logits = (graph.adjacency @ (x @ p["out"]["kernel"] + p["out"]["bias"]))[np.asarray(batch)]
    right = logits[np.arange(64), graph.labels[np.asarray(batch)]]
    expected = (np.log(np.exp(logits).sum(1)) - right).mean()
    assert float(task.loss(params, KEY, batch)) == pytest.approx(float(expected), rel=1e-4)


def energy(state):
    """Of the cart, and of a rod about its own middle and with it, from the kinematics of a rod that is not limited."""
    _, speed, angle, spin = state
    mass, half, cart = control.POLE, control.HALF_LENGTH, control.CART
    across, up = speed + half * np.cos(angle) * spin, -half * np.sin(angle) * spin
    kinetic = cart * speed**2 / 2 + mass * (across**2 + up**2) / 2 + (mass * half**2 / 3) * spin**2 / 2
    return kinetic + mass * control.GRAVITY * half * np.cos(angle)


def test_motion_keeps_the_energy_that_force_does_not_change():
    """Power is force times the cart's speed: the accelerations obey it, wherever they are taken."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        state, force = rng.standard_normal(4), 5 * rng.standard_normal()
        cart, pole = control.accelerations(jnp.asarray(state, jnp.float32), force)
        rate = np.array([state[1], float(cart), state[3], float(pole)])
        small = 1e-5
        power = (energy(state + small * rate) - energy(state - small * rate)) / (2 * small)
        assert power == pytest.approx(force * state[1], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("goal", ["balance", "swing-up"])
def test_policies_are_worth_between_0_and_1(goal, quick_jit):
    family = control.CartPole(network=architecture(MLP, hidden=()), goal=goal, activations=("tanh",), batch_size=8)
    task = family.task(jnp.asarray(0))
    batch = task.sample_batch(KEY, "train")
    gradient = quick_jit(jax.value_and_grad(task.loss))
    losses = {}
    for name, gains in {"none": (0,) * 5, "good": (1, 1.5, 20, 0, 3), "mad": (-1e6, 1e6, -1e6, 1e6, 1e6)}.items():
        params = {"layers": {0: {"kernel": jnp.asarray(gains, jnp.float32)[:, None] / 2, "bias": jnp.zeros(1)}}}
        losses[name], grads = gradient(params, KEY, batch)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
        assert 0 <= losses[name] <= 1
    if goal == "balance":
        assert losses["good"] < 0.05 < losses["none"]
    else:
        assert losses["none"] > 0.9  # it hangs
    assert float(control.cost(jnp.zeros(4))) == 0
    assert float(control.cost(jnp.array([0, 0, jnp.pi, 0]))) == pytest.approx(1)
