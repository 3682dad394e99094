"""MetaOptimize against autodiff, its published recursions and its special cases."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import learned_opt
from learned_opt.evaluate.reproduce import metaoptimize_identities

# Compiles faster, to slower code.
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
)
DECAY = 0.1
ADAM = optax.scale_by_adam(eps_root=1e-30)
BASES: dict[str, tuple[optax.GradientTransformation, float]] = {
    "sgd": (optax.identity(), 0.0),
    "sgdm": (optax.chain(optax.ema(0.9, debias=False), optax.add_decayed_weights(DECAY)), DECAY),
    "rmsprop": (optax.scale_by_rms(0.99), 0.0),
    "adam": (ADAM, 0.0),
    "adamw": (optax.chain(ADAM, optax.add_decayed_weights(DECAY)), DECAY),
    "lion": (optax.chain(optax.scale_by_lion(), optax.add_decayed_weights(DECAY)), DECAY),
}


def network() -> tuple[Any, Any]:
    """A small tanh network on a teacher's labels: parameters, and its loss on a fresh minibatch."""
    rng = np.random.default_rng(0)
    inputs, first, second = (jnp.asarray(rng.normal(size=s)) for s in ((200, 5), (5, 4), (4, 3)))
    labels = jnp.argmax(jnp.tanh(inputs @ first) @ second, 1)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        rows = jax.random.randint(key, (16,), 0, len(inputs))
        hidden = jnp.tanh(inputs[rows] @ params["hidden"]["w"] + params["hidden"]["b"])
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["out"]["w"], labels[rows]).mean()

    params = {
        "hidden": {"w": jnp.asarray(rng.normal(size=(5, 4)) / 3), "b": jnp.zeros(4)},
        "out": {"w": jnp.asarray(rng.normal(size=(4, 3)) / 3)},
    }
    return params, loss


def train(optimizer: Any, params: Any, loss: Any, steps: int) -> tuple[Any, Any]:
    """Parameters and optimizer state after that many steps."""

    def body(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        grads = jax.grad(loss)(params, key)
        updates, state = optimizer.update(grads, state, params, value_fn=lambda p: loss(p, key))
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    return jit(lambda p: jax.lax.scan(body, (p, optimizer.init(p)), keys)[0])(params)


def relative(found: Any, expected: Any) -> float:
    found, expected = (jnp.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (found, expected))
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_mo_1_the_trace_with_hessian_is_the_derivative_of_the_weights(base: str, x64: None) -> None:
    """With the step size held and gamma 1, the sensitivities of form L are those of autodiff through the run."""
    params, loss = network()
    start, steps = 0.1, 60
    unit = BASES[base][0]
    _, state = train(learned_opt.metaoptimize(unit, optax.sgd(0.0), initial=start, form="L"), params, loss, steps)

    def weights(log_step: jax.Array) -> Any:
        optimizer = optax.chain(unit, optax.scale(-jnp.exp(log_step)))
        return train(optax.with_extra_args_support(optimizer), params, loss, steps)[0]

    expected = jax.jacfwd(weights)(jnp.log(start))
    assert relative(state.tangents.params, jax.tree.map(lambda x: x[None], expected)) < 1e-10


@pytest.mark.parametrize(
    ("base", "gamma"),
    [("sgdm", 0.95), ("adamw", 1.0), ("adamw", 0.95), ("lion", 0.95)]
    + [pytest.param(base, 1.0, marks=pytest.mark.slow) for base in BASES if base != "adamw"],
)
def test_mo_2_one_copy_of_the_parameters_is_the_engine_without_hessian(base: str, gamma: float, x64: None) -> None:
    """The trace is `h <- gamma (1 - kappa alpha) h + D`, and the sensitivities of the whole state; same trajectory."""
    params, loss = network()
    unit, kappa = BASES[base]
    start, steps = 0.02, 40
    quick = learned_opt.metaoptimize(unit, optax.adam(0.02), initial=start, gamma=gamma)

    def make(h: Any) -> optax.GradientTransformation:
        return optax.chain(unit, optax.scale(-h["all"]))

    engine = learned_opt.tune_online(make, {"all": start}, optax.adam(0.02), gamma=gamma)
    (weights, state), (other_weights, other) = (train(o, params, loss, steps) for o in (quick, engine))
    assert abs(float(state.logs["all"]) - np.log(start)) > 0.05  # it moved
    assert relative(weights, other_weights) < 1e-10
    assert relative(state.logs, other.logs) < 1e-10
    assert relative(state.trace, other.tangents.params) < 1e-10

    h = jax.tree.map(jnp.zeros_like, params)
    current, opt_state = params, quick.init(params)
    update = jit(lambda key, state, p: quick.update(jax.grad(loss)(p, key), state, p))
    for key in jax.random.split(jax.random.key(1), 5):
        alpha = learned_opt.step_sizes(opt_state)["all"]
        updates, opt_state = update(key, opt_state, current)
        h = jax.tree.map(lambda h, d, a=alpha: gamma * (1 - kappa * a) * h + d, h, updates)
        current = optax.apply_updates(current, updates)
    assert relative(opt_state.trace, h) < 1e-10


def test_mo_3_without_memory_it_is_hypergradient_descent(x64: None) -> None:
    """gamma = 0: the log step size moves by eta alpha g_t . g_{t-1}, the multiplicative rule of the 2018 paper."""
    params, loss = network()
    eta, start = 0.5, 0.1
    optimizer = learned_opt.metaoptimize(optax.identity(), optax.sgd(eta), initial=start, gamma=0.0)
    current, state = params, optimizer.init(params)
    log_step, previous = jnp.log(start), jax.tree.map(jnp.zeros_like, params)
    previous_step, mine, grad = 0.0, params, jit(jax.grad(loss))
    update = jit(optimizer.update)
    for key in jax.random.split(jax.random.key(1), 30):
        updates, state = update(grad(current, key), state, current)
        current = optax.apply_updates(current, updates)
        grads = grad(mine, key)
        step = jnp.exp(log_step)
        mine = jax.tree.map(lambda p, g, a=step: p - a * g, mine, grads)
        log_step = log_step + eta * previous_step * optax.tree.vdot(grads, previous)
        previous, previous_step = grads, step
    assert abs(float(log_step) - np.log(start)) > 0.01
    assert relative(current, mine) < 1e-10
    np.testing.assert_allclose(state.logs["all"], log_step, rtol=1e-10)


def test_mo_3_with_a_diagonal_hessian_it_is_idbd(x64: None) -> None:
    """And with the step size itself as what moves, reset after every step, hypergradient descent."""
    assert metaoptimize_identities.idbd() < 1e-10
    assert metaoptimize_identities.hypergradient_descent() < 1e-10


def test_2x2_is_the_published_scalar_recursion(x64: None) -> None:
    """SGD with SGD, algorithm 2 of the paper but with one gamma in the last term, as its equation 14 has it."""
    params, loss = network()
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    eta, gamma, start = 0.05, 0.9, 0.2
    optimizer = learned_opt.metaoptimize(optax.identity(), optax.sgd(eta), initial=start, gamma=gamma, form="2x2")
    steps = 20
    found, state = train(optimizer, params, loss, steps)
    w, beta, trace, y = flat, jnp.log(start), jnp.zeros_like(flat), 1.0

    @jit
    def derivatives(w: jax.Array, key: jax.Array) -> Any:
        return [d(lambda w: loss(unravel(w), key))(w) for d in (jax.grad, jax.hessian)]

    for key in jax.random.split(jax.random.key(1), steps):
        (g, hessian), alpha = derivatives(w, key), jnp.exp(beta)
        into, fed = gamma * trace, gamma * y + 1 - gamma
        w, beta = w - alpha * g, beta - eta * trace @ g
        y = fed - eta * trace @ (hessian @ into)
        trace = into - alpha * hessian @ into - fed * alpha * g
    assert abs(float(y) - 1) > 1e-4
    assert relative(found, unravel(w)) < 1e-10
    np.testing.assert_allclose(state.logs["all"], beta, rtol=1e-10)
    assert relative(state.tangents.params, jax.tree.map(lambda x: x[None], unravel(trace))) < 1e-10


def test_full_is_the_published_recursion(x64: None) -> None:
    """One weight on a loss with a third derivative: algorithm 1 with its 3 x 3 matrix G written out."""
    eta, gamma, curvature, third = 0.3, 0.9, 2.0, 0.7

    def loss(w: Any) -> jax.Array:
        return 0.5 * curvature * w**2 + third / 6 * w**3

    optimizer = learned_opt.metaoptimize(optax.identity(), optax.sgd(eta), initial=0.2, gamma=gamma, form="full")
    update = jit(lambda g, state, w: optimizer.update(g, state, w, value_fn=loss))
    weights = jnp.asarray(1.5)
    state = optimizer.init(weights)
    beta, w, h, sensitivities = np.log(0.2), 1.5, 0.0, np.array([1.0, 0.0, 0.0])
    for _ in range(15):
        updates, state = update(jax.grad(loss)(weights), state, weights)
        weights = weights + updates
        alpha, g, second = np.exp(beta), curvature * w + third / 2 * w**2, curvature + third * w
        into = gamma * sensitivities + np.array([1 - gamma, 0, 0])
        y = into[0]
        matrix = [
            [1, -eta * h * second, -eta * g],
            [-alpha * g, 1 - alpha * second, 0],
            [
                -alpha * (gamma * second * h + y * g),
                -alpha * (gamma * third * h + y * second),
                gamma * (1 - alpha * second),
            ],
        ]
        beta, w, sensitivities = beta - eta * h * g, w - alpha * g, np.array(matrix) @ into
        h = sensitivities[1]
    found = [state.logs["all"], weights, *(x.ravel()[0] for x in jax.tree.leaves(state.tangents))]
    np.testing.assert_allclose(found, [beta, w, sensitivities[0], h, sensitivities[2]], rtol=1e-10)
    assert abs(sensitivities[0] - 1) > 0.01


@pytest.mark.parametrize(("base", "meta"), [("adamw", "sgd"), ("adamw", "adam"), ("lion", "lion")])
def test_it_finds_a_step_size_from_one_that_is_far_too_small(base: str, meta: str) -> None:
    """With any meta-optimizer the loss falls below that of the base at the step size it started from."""
    params, loss = jax.tree.map(lambda x: x.astype(jnp.float32), network()[0]), network()[1]
    move, initial = {
        "sgd": (optax.sgd(0.05), 1e-3),
        "adam": (optax.adam(0.03), 1e-5),
        "lion": (optax.lion(0.03), 1e-5),
    }[meta]
    tuned = learned_opt.metaoptimize(BASES[base][0], move, initial=initial, bounds=(1e-6, 0.1))
    fixed = optax.with_extra_args_support(optax.chain(BASES[base][0], optax.scale(-initial)))
    weights, state = train(tuned, params, loss, 400)
    losses = [float(loss(w, jax.random.key(9))) for w in (weights, train(fixed, params, loss, 400)[0])]
    assert losses[0] < 0.9 * losses[1]
    assert float(learned_opt.step_sizes(state)["all"]) > 2 * initial


@pytest.mark.parametrize(
    ("sharing", "names"),
    [
        ("scalar", {"all": ()}),
        ("tensor", {"hidden/b": (), "hidden/w": (), "out/w": ()}),
        (lambda path: path.split("/")[0], {"hidden": (), "out": ()}),
        ("weight", {"hidden/b": (4,), "hidden/w": (5, 4), "out/w": (4, 3)}),
    ],
)
def test_step_sizes_are_shared_as_asked(sharing: Any, names: dict[str, tuple[int, ...]]) -> None:
    params, loss = network()
    optimizer = learned_opt.metaoptimize(ADAM, initial=0.01, sharing=sharing)
    _, state = train(optimizer, params, loss, 30)
    found = learned_opt.step_sizes(optax.chain(optimizer).init(params))
    assert {name: x.shape for name, x in found.items()} == names
    moved = learned_opt.step_sizes(state)
    values = {float(x.mean()) for x in moved.values()}
    assert len(values) == len(names)
    assert 0.01 not in values


def test_blocks_follow_their_own_gradients(x64: None) -> None:
    """The meta-gradient of a block is the sum over its own weights: two blocks are two runs on separable losses."""

    def loss(params: Any, key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, (3,))
        return sum((jnp.sum((p - noise) ** 2) * s for p, s in zip(params.values(), (1.0, 0.1), strict=True)))

    params = {"a": jnp.ones(3), "b": 2 * jnp.ones(3)}
    one = train(learned_opt.metaoptimize(ADAM, initial=0.01, sharing="tensor"), params, loss, 50)[1].logs
    for name, scale in (("a", 1.0), ("b", 0.1)):
        alone = train(
            learned_opt.metaoptimize(ADAM, initial=0.01),
            {name: params[name]},
            lambda p, key, s=scale: s * jnp.sum((next(iter(p.values())) - jax.random.normal(key, (3,))) ** 2),
            50,
        )[1]
        np.testing.assert_allclose(alone.logs["all"], one[name], rtol=1e-10)


@pytest.mark.parametrize("blocks", [1, 3])
def test_state_is_the_base_and_one_copy_of_the_parameters(blocks: int) -> None:
    params = jax.tree.map(lambda x: x.astype(jnp.float32), network()[0])
    optimizer = learned_opt.metaoptimize(ADAM, optax.adam(1e-3), sharing="scalar" if blocks == 1 else "tensor")

    def count(tree: Any) -> int:
        return sum(x.nbytes for x in jax.tree.leaves(tree))

    extra = count(optimizer.init(params)) - count(ADAM.init(params)) - count(params)
    assert extra == 4 * (3 * blocks + 3)  # logs and two moments for each block; Adam's count, skipped, bounded


def test_a_gradient_that_is_not_finite_moves_no_step_size() -> None:
    params, loss = network()
    optimizer = learned_opt.metaoptimize(ADAM, optax.adam(0.01), initial=0.01)
    grads = jax.grad(loss)(params, jax.random.key(0))
    state, update = optimizer.init(params), jit(optimizer.update)
    for _ in range(3):
        _, state = update(grads, state, params)
    broken = jax.tree.map(lambda g: g.at[0].set(jnp.nan), grads)
    updates, after = update(broken, state, params)
    assert int(after.skipped) == 1
    assert after.logs == state.logs
    assert not np.isfinite(updates["out"]["w"]).all()  # the update itself is the base's affair
    guarded = optax.apply_if_finite(optimizer, 10)
    kept, _ = jit(guarded.update)(broken, guarded.init(params), params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept))
    for x in jax.tree.leaves(after.trace):
        np.testing.assert_array_equal(x, 0)


def test_bounds_hold_and_are_counted() -> None:
    params, loss = network()
    optimizer = learned_opt.metaoptimize(ADAM, optax.adam(0.5), initial=0.01, bounds=(0.005, 0.02))
    _, state = train(optimizer, params, loss, 50)
    assert 0.00499 < float(learned_opt.step_sizes(state)["all"]) < 0.02001
    assert 0 < int(state.bounded) <= 50


def test_momentum_and_betas_tune_themselves() -> None:
    """On a quadratic without noise, more momentum than 0 helps; every hyperparameter of Adam moves and stays finite."""

    def loss(params: Any, key: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(jnp.array([1.0, 0.01]) * params**2)

    momentum = learned_opt.tune_online(
        lambda h: optax.sgd(h["learning_rate"], momentum=1 - h["one_minus_momentum"]),
        {"learning_rate": 0.5, "one_minus_momentum": 0.9},
        optax.adam(0.01),
        form="L",
        bounds={"learning_rate": (1e-3, 1.0), "one_minus_momentum": (0.05, 1.0)},
    )
    weights, state = train(momentum, jnp.ones(2), loss, 300)
    found = learned_opt.step_sizes(state)
    assert 1 - float(found["one_minus_momentum"]) > 3 * 0.1  # three times what it started with
    fixed = optax.with_extra_args_support(optax.sgd(0.5, momentum=0.1))
    assert float(loss(weights, None)) < 0.5 * float(loss(train(fixed, jnp.ones(2), loss, 300)[0], None))

    adam = learned_opt.tune_online(
        lambda h: optax.adam(h["rate"], b1=1 - h["one_minus_b1"], b2=1 - h["one_minus_b2"], eps_root=1e-30),
        {"rate": 0.01, "one_minus_b1": 0.1, "one_minus_b2": 0.01},
    )
    _, state = train(adam, jnp.ones(2), loss, 20)
    assert int(state.skipped) == 0
    moved = learned_opt.step_sizes(state)
    assert abs(float(moved["rate"]) / 0.01 - 1) > 1e-3
    assert abs(float(moved["one_minus_b1"]) / 0.1 - 1) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 1.5}, "gamma was given 1.5: a number from 0 to 1 is accepted"),
        ({"initial": 0.0}, "initial was given 0.0: a number above 0 is accepted"),
        ({"bounds": (1.0, 0.1)}, "bounds were given 1.0, 0.1"),
        ({"form": "3x3"}, "unknown form '3x3'"),
        ({"sharing": "layer"}, "unknown sharing 'layer'"),
    ],
)
def test_bad_arguments_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(learned_opt.UsageError, match=message.split(":")[0]):
        learned_opt.metaoptimize(ADAM, **arguments)


def test_step_sizes_of_something_else() -> None:
    with pytest.raises(learned_opt.UsageError, match="a state with 0 metaoptimize inside"):
        learned_opt.step_sizes(ADAM.init(jnp.ones(2)))
