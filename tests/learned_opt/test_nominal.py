"""With its network silent, STAR is the optimizer that its switches name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learned_opt import Star, black_box_mlp

RATE, EPS = 3e-2, 1e-16
ADAM = {"eps": 0.0, "eps_root": EPS}  # STAR adds its epsilon under the root
PARAMS = {"w": np.linspace(-1, 1, 12).reshape(4, 3), "b": np.linspace(-1, 1, 5)}


def mean_of(*transforms):
    """An optimizer whose update is the mean of theirs."""

    def update(grads, states, params=None):
        updates, states = zip(
            *[t.update(grads, s, params) for t, s in zip(transforms, states, strict=True)], strict=True
        )
        return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *updates), states

    return optax.GradientTransformation(lambda params: tuple(t.init(params) for t in transforms), update)


def silent(star):
    """Meta-parameters at zero: a network that says nothing, and the published decays."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(star.init, jax.random.key(0)))


def assert_same_updates(quick_jit, transform, expected, rtol=1e-10):
    update = quick_jit(transform.update)
    params, state, expected_state = PARAMS, transform.init(PARAMS), expected.init(PARAMS)
    for step in range(5):
        grads = jax.tree.map(lambda p, step=step: np.sin(5 * p + step), params)
        updates, state = update(grads, state, params)
        same, expected_state = expected.update(grads, expected_state, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-15), updates, same)
        params = optax.apply_updates(params, updates)


AGGMO = [optax.ema(decay) for decay in (0.9, 0.99, 0.999)]
ADAM_AGGMO = [optax.scale_by_adam(b1=b1, **ADAM) for b1 in (0.9, 0.99, 0.999)]


@pytest.mark.parametrize(
    ("nominal", "expected"),
    [
        ("none", optax.set_to_zero()),
        ("sgd", optax.sgd(RATE)),
        ("momentum", optax.chain(optax.ema(0.9), optax.scale(-RATE))),
        ("aggmo", optax.chain(mean_of(*AGGMO), optax.scale(-RATE))),
        ("adam", optax.adam(RATE, b1=0.9, b2=0.999, **ADAM)),
        ("adam-aggmo", optax.chain(mean_of(*ADAM_AGGMO), optax.scale(-RATE))),
    ],
)
def test_nominal_term_alone(nominal, expected, quick_jit, x64):
    star = Star(nominal=nominal, nominal_scale=RATE, weight_decay=0.0, second_moment_eps=EPS)
    assert_same_updates(quick_jit, star.transform(silent(star)), expected)


def test_adam_with_decay_is_adamw(quick_jit, x64):
    star = Star(nominal="adam", nominal_scale=RATE, weight_decay=1e-2, second_moment_eps=EPS)
    assert_same_updates(quick_jit, star.transform(silent(star)), optax.adamw(RATE, weight_decay=1e-2 / RATE, **ADAM))


def test_black_box_alone_does_nothing(quick_jit, x64):
    star = black_box_mlp()
    assert_same_updates(quick_jit, star.transform(silent(star)), optax.set_to_zero())


def test_biases_scale_each_term(quick_jit, x64):
    """Head biases of a network without weights: constant heads, so each term is its closed form."""
    star = Star(
        nominal="sgd", preconditioner="none", step_scale=0.1, nominal_scale=RATE, weight_decay=0.01, exponent_scale=0.5
    )
    theta = silent(star)
    d, a, nominal, decay = 0.7, 0.4, -0.6, 0.2
    theta["network"]["layer_2"]["biases"] = jnp.asarray([d, a, nominal, decay])

    def update(grads, state, params):
        shift = 0.1 * d * np.exp(0.5 * a)
        rate, shrink = RATE * np.exp(0.5 * nominal), 0.01 * np.exp(0.5 * decay)
        return jax.tree.map(lambda g, p: -shift - rate * g - shrink * p, grads, params), state

    closed_form = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    assert_same_updates(quick_jit, star.transform(theta), closed_form)


@pytest.mark.parametrize(
    ("star", "heads", "count"),
    [
        (Star(), ("direction", "magnitude", "nominal", "decay"), 207),
        (black_box_mlp(), ("direction", "magnitude"), 207 - 2 * 5),
        (Star(learned_magnitude=False), ("direction", "nominal", "decay"), 207 - 5),
        (Star(hidden=()), ("direction", "magnitude", "nominal", "decay"), 39 * 4 + 4 + 7),
    ],
)
def test_number_of_meta_parameters(star, heads, count):
    assert star.heads == heads
    assert sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(star.init, jax.random.key(0)))) == count


def test_starting_meta_parameters(quick_jit):
    thetas = quick_jit(jax.vmap(Star().init))(jax.random.split(jax.random.key(0), 500))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(thetas["decays"]))
    for layer, fan_in in zip(thetas["network"].values(), (39, 4, 4), strict=True):
        assert np.all(layer["biases"] == 0)
        weights = np.asarray(layer["weights"])
        assert weights.std() * np.sqrt(fan_in) == pytest.approx(1, abs=0.05)
        assert weights.mean() * np.sqrt(fan_in) == pytest.approx(0, abs=0.05)
        assert np.abs(weights).max() * np.sqrt(fan_in) < 2.5  # truncated at two deviations before rescaling


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_gradient_that_surges_moves_a_tensor_no_further_than_the_threshold(threshold, quick_jit, x64):
    """Gradients a thousand times as large as before are in the momenta at once, in v over a thousand steps."""
    star = Star(nominal_scale=RATE, weight_decay=0.0, second_moment_eps=EPS, clipping_threshold=threshold)
    params, grads = np.linspace(-1, 1, 5), jnp.ones(2010).at[-10:].set(1000.0)

    def lengths(transform):
        def step(state, grad):
            updates, state = transform.update(grad * jnp.ones(5), state, params)
            return state, jnp.sqrt(jnp.square(updates).mean()) / RATE

        return jax.lax.scan(step, transform.init(params), grads)[1]

    found = quick_jit(lambda: lengths(star.transform(silent(star))))()
    free = quick_jit(lambda: lengths(optax.chain(mean_of(*ADAM_AGGMO), optax.scale(-RATE))))()
    assert free.max() > 2
    np.testing.assert_allclose(found, np.minimum(free, 1) if threshold else free, rtol=1e-8)


def test_early_decay_is_of_matrices_and_ends(quick_jit, x64):
    """Without gradients nothing else is left of a step."""
    star = Star(weight_decay=0.0, early_decay=0.01)
    transform = star.transform(silent(star))
    state, zeros = transform.init(PARAMS), jax.tree.map(np.zeros_like, PARAMS)
    for t in (1, 2000):
        updates, _ = quick_jit(transform.update)(zeros, state._replace(count=jnp.int32(t - 1)), PARAMS)
        np.testing.assert_allclose(updates["w"], -0.01 * (1 + t / 1000) ** -6.0 * PARAMS["w"], rtol=1e-10)
        np.testing.assert_array_equal(updates["b"], 0)
