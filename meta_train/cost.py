"""What hypergradients of a whole run will cost, forward and reverse, before anything is compiled."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt import sensitivity
from learned_opt.base import Theta
from learned_opt.meta_train.hypergradient import WholeRun
from learned_opt.tasks.base import Task
from learned_opt.tasks.training import InnerState

Mode = Literal["forward", "reverse"]
MEMORY = 2**30  # bytes that reverse mode may keep


class Cost(NamedTuple):
    """Of one hypergradient: operations, by XLA's count of uncompiled programs, and bytes kept along the run."""

    flops: float
    bytes: float

    def __str__(self) -> str:
        """For a person."""
        return f"{self.flops / 1e9:.3g} Gflop and {self.bytes / 1e6:.3g} MB"


class Prediction(NamedTuple):
    """The cost of both modes."""

    forward: Cost
    reverse: Cost

    def choice(self) -> Mode:
        """The one with fewer operations; forward where reverse would keep more than `MEMORY` bytes."""
        return "reverse" if self.reverse.flops < self.forward.flops and self.reverse.bytes <= MEMORY else "forward"

    def __str__(self) -> str:
        """One line."""
        return f"{self.forward} forward, {self.reverse} in reverse"


def predict(run: WholeRun, task: Task, theta: Theta) -> Prediction:
    """For one run: columns times steps against what backpropagation keeps of every step."""
    windows, rest = run.split(theta)
    steps = run.optimizer.steps
    inner = jax.eval_shape(lambda: run.start(task, theta, jax.random.key(0)))

    def step(inner: InnerState, windows: Any) -> Any:
        return run.step(task, rest, jax.random.key(0), inner, windows)

    def numbers_step(numbers: Any, windows: Any, inner: InnerState) -> Any:
        return sensitivity.floats(step(sensitivity.merge(numbers, inner), windows)[0])

    def backward(inner: InnerState, windows: Any) -> Any:
        numbers = sensitivity.floats(inner)
        new, pull = jax.vjp(lambda n, w: numbers_step(n, w, inner), numbers, windows)
        return pull(jax.tree.map(jnp.ones_like, new))

    def kept(inner: InnerState, windows: Any) -> Any:
        return jax.vjp(lambda n, w: numbers_step(n, w, inner), sensitivity.floats(inner), windows)[1]

    def push(columns: int) -> Any:
        def pushed(inner: InnerState, windows: Any) -> Any:
            zeros = jax.tree.map(lambda x: x[:columns], sensitivity.start(inner, windows))
            active = jax.tree.map(lambda x: x[:columns], sensitivity.columns(windows))
            return sensitivity.advance(step, inner, zeros, windows, active=active)[:2]

        return _flops(pushed, inner, windows)

    size = sum(x.size for x in windows.values())
    one, two = push(1), push(2)  # columns add up
    _, stages = run.stages(windows)
    forward = sum((last - first) * (one + (active - 1) * (two - one)) for first, last, active in stages)
    state = _bytes(inner)
    each = _bytes(jax.eval_shape(kept, inner, windows))
    return Prediction(Cost(forward, (size + 1) * state), Cost(steps * _flops(backward, inner, windows), steps * each))


def _flops(function: Any, *arguments: Any) -> float:
    analysis = jax.jit(function).lower(*arguments).cost_analysis() or {}
    return float(analysis.get("flops", np.nan))


def _bytes(tree: Any) -> float:
    return float(sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype")))
