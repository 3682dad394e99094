"""Many runs of one optimizer on one task, side by side: the only place in `evaluate` with `vmap` and `pmap`."""

import functools
import math
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from learned_opt.base import Theta
from learned_opt.evaluate.contenders import Optimizer
from learned_opt.tasks import training
from learned_opt.tasks.base import Batch, Params, Split, TaskFamily, TaskParams
from learned_opt.tasks.training import InnerState

AXIS = "devices"
VALID_BATCHES = TEST_BATCHES = 16  # equally many, so that one compiled program evaluates on both


class Draws(NamedTuple):
    """What a task's seeds fix for every contender, `[seeds, ...]`; batches are `[seeds, TEST_BATCHES, ...]`."""

    task_params: TaskParams
    params: Params
    train_key: jax.Array
    valid_batches: Batch
    test_batches: Batch


def task_key(key: jax.Array, task: str) -> jax.Array:
    """The key of the task of that name: the same in every suite."""
    return jax.random.fold_in(key, zlib.crc32(task.encode()))


def draw(family: TaskFamily, key: jax.Array, seeds: int) -> Draws:
    """Tasks, starting weights and batches to evaluate on of all seeds, as host arrays."""
    return jax.device_get(_draw(family, key, np.arange(seeds)))


# It runs once: compiling it well would take ten times as long.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
@functools.partial(jax.vmap, in_axes=(None, None, 0))
def _draw(family: TaskFamily, key: jax.Array, seed: jax.Array) -> Draws:
    return _draw_one(family, key, seed)


def _draw_one(family: TaskFamily, key: jax.Array, seed: jax.Array) -> Draws:
    task_key, params_key, train_key, test_key = jax.random.split(jax.random.fold_in(key, seed), 4)
    valid_key = jax.random.fold_in(test_key, 0)
    task_params = family.sample(task_key)
    task = family.task(task_params)
    valid_batches, test_batches = (
        jax.vmap(lambda key, split=split: task.sample_batch(key, split))(jax.random.split(key, TEST_BATCHES))
        for split, key in (("valid", valid_key), ("test", test_key))
    )
    return Draws(task_params, task.init(params_key), jax.random.key_data(train_key), valid_batches, test_batches)


class Program(NamedTuple):
    """Compiled functions of one optimizer; JAX keeps a version of each for every structure and shape of arguments."""

    start: Callable[..., InnerState]
    train: Callable[..., tuple[InnerState, jax.Array]]
    evaluate: Callable[..., jax.Array]
    devices: tuple[jax.Device, ...]
    in_turn: bool


class OneRun(NamedTuple):
    """What a program is made of: one run of one optimizer, which is made inside, from a traced theta."""

    start: Callable[..., InnerState]
    train: Callable[..., tuple[InnerState, jax.Array]]
    evaluate: Callable[..., jax.Array]


@functools.cache
def one_run(optimizer: Optimizer) -> OneRun:
    """For any task."""

    def start(family: TaskFamily, theta: Theta, task_params: TaskParams, params: Params) -> InnerState:
        return training.start_at(family.task(task_params), optimizer.transform(theta), params)

    def train(
        family: TaskFamily,
        theta: Theta,
        task_params: TaskParams,
        key: jax.Array,
        state: InnerState,
        losses: jax.Array,
        first: int,
        end: int,
    ) -> tuple[InnerState, jax.Array]:
        task, transform, key = family.task(task_params), optimizer.transform(theta), jax.random.wrap_key_data(key)

        def body(step: jax.Array, carry: tuple[InnerState, jax.Array]) -> tuple[InnerState, jax.Array]:
            state, losses = carry
            state, taken = training.step(task, transform, state, jax.random.fold_in(key, step))
            return state, jax.lax.dynamic_update_index_in_dim(losses, taken.loss.astype(losses.dtype), step, 0)

        # Traced bounds, where a scan would need its length: one compiled program for all horizons.
        return jax.lax.fori_loop(first, end, body, (state, losses))

    def evaluate(
        family: TaskFamily, batches: Batch, task_params: TaskParams, key: jax.Array, seed: jax.Array, state: InnerState
    ) -> jax.Array:
        task, params, key = family.task(task_params), _evaluated(state), jax.random.wrap_key_data(key)

        def loss(batch_of_seeds: Batch) -> jax.Array:
            return task.loss(params, key, jax.tree.map(lambda x: x[seed], batch_of_seeds))

        return jax.lax.map(loss, jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batches)).mean()

    return OneRun(start, train, evaluate)


def text(optimizer: Optimizer, family: TaskFamily, theta: Theta) -> str:
    """Everything that one run computes, as its lowered program: it differs if the task or the optimizer does.

    Numbers that enter it as arguments, the data and theta among them, are not in it; constants are.
    """

    def everything(family: TaskFamily, theta: Theta, key: jax.Array, seed: jax.Array, losses: jax.Array) -> Any:
        draws, run = _draw_one(family, key, seed), one_run(optimizer)
        state = run.start(family, theta, draws.task_params, draws.params)
        state, losses = run.train(family, theta, draws.task_params, draws.train_key, state, losses, 0, 1)
        batches = jax.tree.map(lambda x: x[None], draws.valid_batches)
        return losses, run.evaluate(family, batches, draws.task_params, draws.train_key, seed, state)

    losses = jax.ShapeDtypeStruct((1,), np.float32)
    return jax.jit(everything).lower(family, theta, jax.random.key(0), np.int32(0), losses).as_text()


@functools.cache
def program(optimizer: Optimizer, devices: tuple[jax.Device, ...], in_turn: bool = False) -> Program:
    """Many runs of one optimizer, over all devices; on each of them side by side, or else one after another."""

    def spread(function: Callable[..., Any], axes: tuple[int | None, ...], donate: tuple[int, ...] = ()) -> Any:
        many = _in_turn(function, axes) if in_turn else jax.vmap(function, axes)
        # The empty argument: where there are as many arguments as leaves, `pmap` takes the axes of arguments for those
        # of leaves (JAX 0.10), and a family without data has none.
        donated = tuple(argument + 1 for argument in donate)
        mapped = jax.pmap(
            lambda _, *args: many(*args), AXIS, in_axes=((), *axes), devices=devices, donate_argnums=donated
        )
        return functools.partial(mapped, ())

    run = one_run(optimizer)
    return Program(
        start=spread(run.start, (None, 0, 0, 0)),
        train=spread(run.train, (None, 0, 0, 0, 0, 0, None, None), donate=(4, 5)),
        evaluate=spread(run.evaluate, (None, None, 0, 0, 0, 0)),
        devices=devices,
        in_turn=in_turn,
    )


def forget() -> None:
    """Lets go of all compiled programs: each holds pieces of memory, of which Linux grants a process 65,530."""
    program.cache_clear()
    jax.clear_caches()


def _in_turn(function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """As `jax.vmap`, one after another."""

    def many(*args: Any) -> Any:
        def one(mapped: list[Any]) -> Any:
            rest = iter(mapped)
            return function(*(arg if axis is None else next(rest) for arg, axis in zip(args, axes, strict=True)))

        return jax.lax.map(one, [arg for arg, axis in zip(args, axes, strict=True) if axis is not None])

    return many


class Runs:
    """All thetas x seeds of one optimizer on one task, in training.

    Devices get equally many runs: run 0 is repeated to fill them, and the repetitions are dropped from the results.
    """

    def __init__(
        self, program: Program, thetas: Sequence[Theta], family: TaskFamily, draws: Draws, max_steps: int
    ) -> None:
        """At step 0."""
        devices = len(program.devices)
        self.program = program
        self.shape = len(thetas), len(draws.train_key)
        self.count = -(-math.prod(self.shape) // devices) * devices
        index = np.arange(self.count).reshape(devices, -1)
        theta_index, seed_index = np.divmod(np.where(index < math.prod(self.shape), index, 0), self.shape[1])
        mesh = jax.sharding.Mesh(np.asarray(program.devices), AXIS)
        everywhere, split = jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P(AXIS))
        batches = {"valid": draws.valid_batches, "test": draws.test_batches}
        self.family, self.batches = jax.device_put((family, batches), everywhere)
        params, task_params, key = jax.tree.map(
            lambda x: x[seed_index], (draws.params, draws.task_params, draws.train_key)
        )
        theta = jax.tree.map(lambda *leaves: np.stack(leaves)[theta_index], *thetas)
        self.theta, self.task_params, self.key, self.seed = jax.device_put((theta, task_params, key, seed_index), split)
        self.losses = jax.device_put(np.zeros((*index.shape, max_steps), np.float32), split)
        params = jax.device_put(params, split)
        self.state = self.program.start(self.family, self.theta, self.task_params, params)
        self.step, self.seconds = 0, 0.0

    def compile(self) -> None:
        """Compiles what follows, by taking no step."""
        self.train_to(0)
        self.evaluated("test")

    def train_to(self, step: int) -> None:
        """Trains up to `step`, and waits for it."""
        began = time.perf_counter()
        self.state, self.losses = jax.block_until_ready(
            self.program.train(
                self.family, self.theta, self.task_params, self.key, self.state, self.losses, self.step, step
            )
        )
        self.step, self.seconds = step, self.seconds + time.perf_counter() - began

    def evaluated(self, split: Split) -> np.ndarray:
        """Mean losses now over the batches of `valid` or `test`, `[thetas, seeds]`."""
        return self._gather(
            self.program.evaluate(self.family, self.batches[split], self.task_params, self.key, self.seed, self.state)
        )

    def training_losses(self) -> np.ndarray:
        """Losses of every step, before its update, `[thetas, seeds, steps]`; zero for steps not taken yet."""
        return self._gather(self.losses)

    @property
    def seconds_per_step(self) -> float:
        """Wall-clock seconds so far, by the steps of all runs taken meanwhile."""
        return self.seconds / (self.count * self.step)

    @property
    def side_by_side(self) -> int:
        """How many runs share the devices at a time."""
        return len(self.program.devices) if self.program.in_turn else self.count

    def _gather(self, values: jax.Array) -> np.ndarray:
        flat = np.asarray(values).reshape(self.count, *values.shape[2:])
        return flat[: math.prod(self.shape)].reshape(*self.shape, *values.shape[2:])


def _evaluated(state: InnerState) -> Params:
    """The weights to test; schedule-free optimizers train at others than those they stand for."""
    if isinstance(state.opt_state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(state.opt_state, state.params)
    return state.params
