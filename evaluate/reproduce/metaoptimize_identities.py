"""MO-1 to MO-4 and MO-6: what the trace is, special cases, how good it is without the Hessian, what it keeps."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt import metaoptimize, sensitivity, tune_online
from learned_opt.base import EPS_ROOT
from learned_opt.evaluate.reproduce.fds_identities import relative
from learned_opt.evaluate.reproduce.rows import Row, quick_jit
from learned_opt.evaluate.reproduce.sampling import temporary_bytes
from learned_opt.evaluate.reproduce.teacher_task import teacher_task

DECAY = 0.1
LIMIT = 1e-10
ADAM = optax.scale_by_adam(eps_root=EPS_ROOT)


def decayed(base: optax.GradientTransformation) -> optax.GradientTransformation:
    """With the paper's weight decay."""
    return optax.chain(base, optax.add_decayed_weights(DECAY))


BASES = {
    "AdamW": decayed(ADAM),
    "Lion": decayed(optax.scale_by_lion(b1=0.9, b2=0.99)),
    "SGDm": decayed(optax.ema(0.9, debias=False)),
}


class Problem(NamedTuple):
    """Training: starting weights, the loss by key of the minibatch, an optimizer of unit step size and a step size."""

    name: str
    params: Any
    loss: Callable[[Any, jax.Array], jax.Array]
    base: optax.GradientTransformation
    step_size: float
    steps: int


def problems() -> tuple[Problem, Problem]:
    """Logistic regression by SGD, and the teacher task by AdamW; float64."""
    rng = np.random.RandomState(0)
    inputs, weights = jnp.asarray(rng.randn(200, 10)), jnp.asarray(rng.randn(10))
    labels = jnp.sign(inputs @ weights + 0.5 * jnp.asarray(rng.randn(200)))

    def logistic(w: jax.Array, key: jax.Array) -> jax.Array:
        rows = jax.random.randint(key, (20,), 0, 200)
        return jax.nn.softplus(-labels[rows] * (inputs[rows] @ w)).mean()

    task = teacher_task("float64")

    def teacher(params: Any, key: jax.Array) -> jax.Array:
        return task.loss(params, key, task.sample_batch(key, "train"))

    return (
        Problem("logistic regression, SGD", jnp.zeros(10), logistic, optax.identity(), 0.3, 60),
        Problem("teacher task, AdamW", task.init(jax.random.key(0)), teacher, BASES["AdamW"], 0.003, 200),
    )


def train(optimizer: optax.GradientTransformationExtraArgs, problem: Problem) -> tuple[Any, Any]:
    """Weights and optimizer state at the end."""

    def body(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        grads = jax.grad(problem.loss)(params, key)
        updates, state = optimizer.update(grads, state, params, value_fn=lambda p: problem.loss(p, key))
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), problem.steps)
    return jax.lax.scan(body, (problem.params, optimizer.init(problem.params)), keys)[0]


def run_held(problem: Problem, form: Any) -> tuple[Any, Any]:
    """The weights at the end of a run with the step size held, and their sensitivity to its logarithm."""
    optimizer = metaoptimize(problem.base, optax.sgd(0.0), initial=problem.step_size, form=form)
    weights, state = quick_jit(lambda: train(optimizer, problem))()
    trace = state.trace if form == "hessian-free" else jax.tree.map(lambda x: x[0], state.tangents.params)
    return weights, trace


def derivative(problem: Problem) -> Any:
    """d weights / d log step size, by autodiff through the run."""

    def end(log_step: jax.Array) -> Any:
        optimizer = optax.chain(problem.base, optax.scale(-jnp.exp(log_step)))
        return train(optax.with_extra_args_support(optimizer), problem)[0]

    return quick_jit(jax.jacfwd(end))(jnp.log(problem.step_size))


def traces() -> Iterator[Row]:
    """MO-1: with the Hessian, the trace is the derivative; MO-4: without, it points the same way."""
    for problem in problems():
        exact = derivative(problem)
        off = relative(run_held(problem, "L")[1], exact)
        what = f"{problem.name}, {problem.steps} steps"
        yield Row(
            "MO-1", f"trace with Hessian = d weights / d log step: {what}", "<= 1e-10", f"{off:.1e}", off <= LIMIT
        )
        weights, free = run_held(problem, "hessian-free")
        vectors = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (free, exact)]
        cosine = float(np.dot(*vectors) / np.prod([np.linalg.norm(x) for x in vectors]))
        grads = jax.grad(problem.loss)(weights, jax.random.key(2))
        signs = [float(np.sign(optax.tree.vdot(grads, tree))) for tree in (free, exact)]
        yield Row(
            "MO-4",
            f"trace without Hessian against it: {what}",
            "cosine > 0.5, same sign of the meta-gradient",
            f"{cosine:.2f}, {'same' if signs[0] == signs[1] else 'opposite'} sign",
            cosine > 0.5 and signs[0] == signs[1],
        )


def one_copy() -> Iterator[Row]:
    """MO-2: the one-copy recursion against the engine over the whole state, and against the published recursion."""
    teacher = problems()[1]._replace(steps=100)
    for name, gamma in (("AdamW", 1.0), ("AdamW", 0.999), ("Lion", 0.999), ("SGDm", 0.999)):
        base, meta = BASES[name], optax.adam(1e-2)
        quick = metaoptimize(base, meta, initial=teacher.step_size, gamma=gamma)

        def make(h: Any, base: optax.GradientTransformation = base) -> optax.GradientTransformation:
            return optax.chain(base, optax.scale(-h["all"]))

        engine = tune_online(make, {"all": teacher.step_size}, meta, gamma=gamma)
        _, state = quick_jit(lambda o=quick: train(o, teacher))()
        _, whole = quick_jit(lambda o=engine: train(o, teacher))()
        published = _published_trace(teacher._replace(base=base), meta, gamma)
        engine_trace = jax.tree.map(lambda x: x[0], whole.tangents.params)
        off = max(relative(state.trace, engine_trace), relative(state.trace, published))
        claim = f"h = gamma (1 - kappa alpha) h + D, {name}, gamma {gamma:g}"
        yield Row("MO-2", claim, "<= 1e-10", f"{off:.1e}", off <= LIMIT)


def _published_trace(problem: Problem, meta: optax.GradientTransformation, gamma: float) -> Any:
    """The published recursion, the displacement written out, and the meta-update with it."""

    def body(carry: Any, key: jax.Array) -> Any:
        params, state, h, beta, meta_state = carry
        grads = jax.grad(problem.loss)(params, key)
        direction, state = problem.base.update(grads, state, params)
        alpha = jnp.exp(beta)
        displacement = jax.tree.map(lambda d: -alpha * d, direction)
        moved, meta_state = meta.update(optax.tree.vdot(h, grads), meta_state, beta)
        h = jax.tree.map(lambda h, d: gamma * (1 - DECAY * alpha) * h + d, h, displacement)
        return (optax.apply_updates(params, displacement), state, h, beta + moved, meta_state), None

    beta = jnp.log(problem.step_size)
    zeros = jax.tree.map(jnp.zeros_like, problem.params)
    carry = problem.params, problem.base.init(problem.params), zeros, beta, meta.init(beta)
    keys = jax.random.split(jax.random.key(1), problem.steps)
    return quick_jit(lambda: jax.lax.scan(body, carry, keys)[0][2])()


def special_cases() -> Iterator[Row]:
    """MO-3: older methods are settings of this one."""
    for what, off in (
        ("gamma = 0 is hypergradient descent, 200 steps", hypergradient_descent()),
        ("one step size for each weight, diagonal Hessian, is IDBD, 500 steps", idbd()),
    ):
        yield Row("MO-3", what, "<= 1e-10", f"{off:.1e}", off <= LIMIT)


def hypergradient_descent(steps: int = 200, eta: float = 1e-3, start: float = 0.1) -> float:
    """`alpha += eta g_t . g_{t-1}`: the engine, reset after every step and with the step size itself as what moves."""
    problem = problems()[0]

    def engine(carry: Any, key: jax.Array) -> Any:
        w, alpha, trace = carry
        grad = jax.grad(problem.loss)(w, key)
        moved = alpha - eta * sensitivity.along(grad, trace)[0]

        def step(w: jax.Array, alpha: jax.Array) -> Any:
            return w - alpha * jax.lax.stop_gradient(jax.grad(problem.loss)(w, key)), (), None

        done = sensitivity.advance(step, w, trace, alpha, gamma=0.0)
        return (done.state, moved, done.sensitivities), done.state

    def written_out(carry: Any, key: jax.Array) -> Any:
        w, alpha, previous = carry
        grad = jax.grad(problem.loss)(w, key)
        w = w - alpha * grad
        return (w, alpha + eta * grad @ previous, grad), w

    w, alpha, keys = problem.params, jnp.asarray(start), jax.random.split(jax.random.key(1), steps)
    found = quick_jit(lambda: jax.lax.scan(engine, (w, alpha, sensitivity.start(w, alpha)), keys)[1])()
    expected = quick_jit(lambda: jax.lax.scan(written_out, (w, alpha, jnp.zeros_like(w)), keys)[1])()
    return relative(found, expected)


def idbd(steps: int = 500, theta: float = 0.002, start: float = 0.01) -> float:
    """Sutton's IDBD on linear regression in 20 dimensions, whose positive part never cuts here, against the engine.

    The engine has one step size for each weight, and d g_i / d w_j is left out for i != j.
    """
    rng = np.random.RandomState(0)
    inputs, target = jnp.asarray(rng.randn(steps, 20)), jnp.asarray(rng.randn(20) * (np.arange(20) < 5))
    answers = inputs @ target + 0.1 * jnp.asarray(rng.randn(steps))

    def engine(carry: Any, batch: Any) -> Any:
        beta, w, trace = carry
        x, y = batch

        def grad(w: jax.Array) -> jax.Array:
            held = jax.lax.stop_gradient(w)
            return -(y - x @ held - x * (w - held)) * x

        beta = beta - theta * sensitivity.along(grad(w), trace)
        done = sensitivity.advance(lambda w, beta: (w - jnp.exp(beta) * grad(w), (), None), w, trace, beta)
        return (beta, done.state, done.sensitivities), (done.state, beta)

    def written_out(carry: Any, batch: Any) -> Any:
        beta, w, h = carry
        x, y = batch
        delta = y - w @ x
        beta = beta + theta * delta * x * h
        alpha = jnp.exp(beta)
        h = h * jnp.maximum(1 - alpha * x**2, 0) + alpha * delta * x
        w = w + alpha * delta * x
        return (beta, w, h), (w, beta)

    beta, w = jnp.full(20, np.log(start)), jnp.zeros(20)
    found = quick_jit(lambda: jax.lax.scan(engine, (beta, w, sensitivity.start(w, beta)), (inputs, answers))[1])()
    expected = quick_jit(lambda: jax.lax.scan(written_out, (beta, w, jnp.zeros(20)), (inputs, answers))[1])()
    assert np.ptp(expected[1][-1]) > 0.1, "the step sizes of weights that matter have not come apart"
    return relative(found, expected)


def cost() -> Iterator[Row]:
    """MO-6: what scalar and blockwise step sizes keep, in the program and in the state."""
    layers = 8
    params = {f"layer_{i}": jnp.zeros((64, 64)) for i in range(layers)}
    size = _nbytes(params)
    temporary = {}
    for sharing in ("scalar", "tensor"):
        optimizer = metaoptimize(ADAM, optax.adam(1e-3), sharing=sharing)
        state = optimizer.init(params)
        program = jax.jit(optimizer.update).lower(params, state, params).compile()
        temporary[sharing] = temporary_bytes(program)
        blocks = 1 if sharing == "scalar" else layers
        extra = _nbytes(state) - _nbytes(ADAM.init(params)) - size
        yield Row(
            "MO-6",
            f"state beyond base and one copy of {size:,} bytes of parameters, {sharing}",
            f"<= 64 bytes and 64 a block, {64 + 64 * blocks}",
            f"{extra} bytes",
            0 <= extra <= 64 + 64 * blocks,
        )
    off = abs(temporary["tensor"] - temporary["scalar"])
    yield Row(
        "MO-6",
        "temporary memory of an update, 8 blocks against one",
        f"differ by < 1 % of 3 copies, {0.03 * size:.0f} bytes",
        f"{temporary['tensor']:,} and {temporary['scalar']:,} bytes",
        off < 0.03 * size,
    )


def _nbytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def rows() -> Iterator[Row]:
    """All of them, in float64 where something is to be equal."""
    with jax.enable_x64(True):
        exact = list(traces())
        yield from [row for row in exact if row.id == "MO-1"]
        yield from one_copy()
        yield from special_cases()
        yield from [row for row in exact if row.id == "MO-4"]
