"""Knobs around an optimizer: each against its formula, together against the formula of all, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import learned_opt
from learned_opt import knobs
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.errors import UsageError
from learned_opt.knobs import with_knobs

PARAMS = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3), "b": jnp.linspace(-1, 1, 5)}
GRADS = [jax.tree.map(lambda p, s=s: s * jnp.cos(3 * p + s), PARAMS) for s in (1.0, -0.7, 2.0, 0.5)]
MATRICES = {"w": True, "b": False}


def follow(optimizer, grads=GRADS):
    """The updates for a sequence of gradients, all at the same parameters, so that nothing but knobs can differ."""
    state, updates = optimizer.init(PARAMS), []
    for grad in grads:
        update, state = jax.jit(optimizer.update)(grad, state, PARAMS)
        updates.append(update)
    return updates


def digits(**given):
    return learned_opt.load("digits", **given)


@pytest.fixture(scope="module")
def plain():
    return follow(digits())


def assert_same(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), actual, expected)


def scaled(updates, factors):
    return [jax.tree.map(lambda u, m=m: m * u, update) for update, m in zip(updates, factors, strict=True)]


def test_what_is_not_given_adds_nothing():
    sgd = optax.sgd(0.1)
    assert with_knobs(sgd).init(PARAMS) == sgd.init(PARAMS)
    optimizer, theta, _ = load_learned_optimizer("digits")
    states = [o.init(PARAMS) for o in (digits(), optimizer.transform(theta))]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_knobs_that_change_nothing(plain):
    assert_same(follow(digits(step_multiplier=1, weight_decay=0.0, mask=MATRICES, clip=1e9)), plain)


def test_a_multiplier(plain):
    assert_same(follow(digits(step_multiplier=0.5)), scaled(plain, [0.5] * 4))


def test_a_schedule_as_multiplier(plain):
    """Of the number of updates so far: the first is multiplied by its value at 0."""
    schedule = optax.linear_schedule(0.0, 1.0, 2)
    assert_same(follow(digits(step_multiplier=schedule)), scaled(plain, [0.0, 0.5, 1.0, 1.0]))


def test_a_cooldown(plain):
    """Over the last half of four steps: 1, 1, 1, 1/2, and 0 from the fifth on."""
    optimizer = digits(total_steps=4, cooldown=0.5)
    updates = follow(optimizer, [*GRADS, GRADS[0], GRADS[1]])
    assert_same(updates[:4], scaled(plain, [1, 1, 1, 0.5]))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(updates[4:]))


@pytest.mark.parametrize(("steps", "share"), [(10, 1.0), (1000, 0.2), (7, 0.3), (1, 0.2), (1_000_000, 0.2)])
def test_the_cooldown_is_linear_to_zero(steps, share):
    factor = jax.jit(lambda total: jax.vmap(knobs.cooldown_schedule(total, share))(counts))
    counts = jnp.unique(jnp.linspace(0, steps + 1, 101).astype(int))
    expected = np.clip((steps - np.asarray(counts)) / (share * steps), 0, 1)
    np.testing.assert_allclose(factor(steps), expected, atol=3e-7)
    assert knobs.cooldown_schedule(steps, share)(steps) == 0


def test_the_default_cooldown_is_a_fifth(plain):
    grads = [GRADS[i % 4] for i in range(10)]
    ratio = [
        float(a["b"][0] / b["b"][0])
        for a, b in zip(follow(digits(total_steps=10), grads), follow(digits(), grads), strict=True)
    ]
    np.testing.assert_allclose(ratio, [1] * 9 + [0.5], rtol=1e-5)


def test_weight_decay_is_adamws():
    """Of Adam at a rate: AdamW's decay times its rate, with the same mask."""
    ours = with_knobs(optax.adam(0.1), weight_decay=0.1 * 0.3, mask=MATRICES)
    assert_same(follow(ours), follow(optax.adamw(0.1, weight_decay=0.3, mask=MATRICES)))


def test_weight_decay_is_multiplied_as_steps_are(plain):
    """By AdamW's schedule too, so that decay ends with the steps."""
    ours = with_knobs(optax.adam(0.1), weight_decay=0.1 * 0.3, total_steps=4, cooldown=0.5)
    theirs = optax.adamw(lambda count: 0.1 * jnp.array([1, 1, 1, 0.5])[count], weight_decay=0.3)
    assert_same(follow(ours), follow(theirs))


def test_a_mask_may_be_a_function(plain):
    mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    updates = follow(digits(weight_decay=0.01, mask=mask))
    assert_same(updates, [{"w": u["w"] - 0.01 * PARAMS["w"], "b": u["b"]} for u in plain])


def test_clipping_comes_before_the_optimizer():
    """(3, 4) clipped to a norm of 1 is (0.6, 0.8), of all parameters together; smaller gradients are left alone."""
    sgd = with_knobs(optax.sgd(1.0), clip=1.0)
    for grad, expected in (([3.0, 4.0], [-0.6, -0.8]), ([0.3, 0.4], [-0.3, -0.4])):
        grads = dict(zip("ab", jnp.array(grad), strict=True))
        updates, _ = sgd.update(grads, sgd.init(grads), grads)
        np.testing.assert_allclose(list(updates.values()), expected, rtol=1e-6)


def test_all_together(plain):
    """`m (u - weight_decay p)`, with m the product of the multiplier and the cooldown; far from clipping."""
    optimizer = digits(
        step_multiplier=lambda count: 0.5, weight_decay=0.01, mask=MATRICES, total_steps=4, cooldown=0.5, clip=1e6
    )
    expected = [{"w": u["w"] - 0.01 * PARAMS["w"], "b": u["b"]} for u in plain]
    assert_same(follow(optimizer), scaled(expected, [0.5, 0.5, 0.5, 0.25]))


def test_optax_injects_every_knob():
    """Its values are in the state then: the same updates, and half of them when the multiplier in there is halved."""
    given = {"step_multiplier": 0.5, "weight_decay": 0.01, "total_steps": 10, "cooldown": 0.5, "clip": 0.1}
    injected = optax.inject_hyperparams(learned_opt.load)("digits", **given)
    assert_same(follow(injected), follow(digits(**given)))
    state = injected.init(PARAMS)
    state.hyperparams["step_multiplier"] /= 2
    half, _ = jax.jit(injected.update)(GRADS[0], state, PARAMS)
    assert_same(jax.tree.map(lambda u: 2 * u, half), follow(digits(**given))[0])


def test_frozen_parameters_with_optax(plain):
    """As the README shows: what is frozen gets no update, and the rest what it would get alone."""
    labels = {"w": "trained", "b": "frozen"}
    optimizer = optax.partition({"trained": digits(weight_decay=0.01), "frozen": optax.set_to_zero()}, labels)
    updates = follow(optimizer)
    assert all(not np.any(u["b"]) for u in updates)
    assert all(np.any(u["w"]) for u in updates)


def test_nnx_takes_the_same_steps():
    """Flax's optimizer keeps the state of the parts."""

    class Linear(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(PARAMS["w"])

    optimizer = digits(step_multiplier=0.5, weight_decay=0.01, total_steps=4, cooldown=0.5, clip=0.1)
    model = Linear()
    tuner = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
    params = {"w": PARAMS["w"]}
    state = optimizer.init(params)
    for grad in GRADS:
        updates, state = optimizer.update({"w": grad["w"]}, state, params)
        params = optax.apply_updates(params, updates)
        tuner.update(model, nnx.State({"w": nnx.Param(grad["w"])}))
    np.testing.assert_allclose(model.w[...], params["w"], rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step_multiplier": 0}, "step_multiplier was given 0: a number above 0 or an optax schedule is accepted"),
        ({"step_multiplier": -1.0}, "step_multiplier was given -1.0"),
        ({"step_multiplier": float("nan")}, "step_multiplier was given nan"),
        ({"step_multiplier": "half"}, "step_multiplier was given 'half'"),
        ({"weight_decay": -1e-4}, "weight_decay was given -0.0001: a number from 0 and below 1 is accepted"),
        ({"weight_decay": 1}, "weight_decay was given 1"),
        ({"mask": MATRICES}, "mask was given without weight_decay"),
        ({"total_steps": 0}, "total_steps was given 0: a number from 1 is accepted"),
        ({"total_steps": "10k"}, "total_steps was given '10k'"),
        ({"total_steps": 10, "cooldown": 0.0}, "cooldown was given 0.0: a share of the steps above 0 and up to 1"),
        ({"total_steps": 10, "cooldown": 1.5}, "cooldown was given 1.5"),
        ({"cooldown": 0.2}, "cooldown was given 0.2 without total_steps"),
        ({"clip": 0}, "clip was given 0: a number above 0 is accepted"),
        ({"clip": float("inf")}, "clip was given inf"),
        ({"clip": jnp.float32(-1)}, "clip was given -1.0"),
        ({"clip": jnp.ones(2)}, "clip was given Array([1., 1.]"),
    ],
)
def test_bad_values_are_one_line(given, message):
    with pytest.raises(UsageError) as error:
        digits(**given)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
