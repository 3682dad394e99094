"""What meta-training costs: against SGD in STAR's place, outside the unrolls, on one device and on all."""

import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learned_opt import StepSize, registry
from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.benchmarks.target import Target
from learned_opt.benchmarks.timing import Clock, interleaved
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.metrics import MetricsWriter
from learned_opt.meta_train.parallel import MOST, Component, OuterSteps
from learned_opt.meta_train.pes import PES
from learned_opt.meta_train.presets import quickstart
from learned_opt.meta_train.trainer import devices
from learned_opt.meta_train.unroll import Problem, Unrolled, Unroller
from learned_opt.tasks import registry as task_registry
from learned_opt.tasks.training import InnerState

COMPILED = "/jax/core/compile/backend_compile_duration"


class Throughput(NamedTuple):
    """Of the preset `quickstart`, in seconds of the clock given; shares and ratios are medians over rounds.

    steps_per_second: inner steps, of all particles and members. floor_share: that, by SGD's. outside_share: an outer
    step whose unrolls take no steps, by a whole one. devices_ratio: the seconds of one device on one core by those of
    all; with_all_cores: the same of one device whose larger operations XLA spreads over all cores. compile_seconds: the
    first outer step and the start of all particles. peak_bytes: of the process so far, whatever it did before.
    """

    devices: int
    steps_per_second: float
    floor_steps_per_second: float
    floor_share: float
    outside_share: float
    devices_ratio: float | None
    with_all_cores: float | None
    compile_seconds: float
    recompilations: int
    peak_bytes: int

    def targets(self) -> list[Target]:
        """All that has a limit."""
        many = []
        if self.devices_ratio is not None:
            detail = f"by one that may use all cores {self.with_all_cores:.3g}"
            name, limit = f"{self.devices} devices by one on one core", 0.85 * self.devices
            many = [Target(name, self.devices_ratio, limit, True, detail)]
        rates = f"{self.steps_per_second:,.0f} against {self.floor_steps_per_second:,.0f} inner steps/s"
        return [
            Target("meta-training by its SGD floor", self.floor_share, 0.5, True, rates),
            Target("share of an outer step outside the unrolls", self.outside_share, 0.1),
            *many,
            Target("seconds to compile quickstart", self.compile_seconds, 15),
            Target("programs compiled after the first outer step", self.recompilations, 0),
        ]

    def line(self) -> str:
        """For the screen."""
        return f"      peak memory of the process {self.peak_bytes / 2**20:,.0f} MiB"


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Still(Unroller):
    """Its truncations take no steps: an outer step with it is what an outer step is besides its unrolls."""

    def unroll(self, theta: Theta, problem: Problem, inner: InnerState, key: jax.Array) -> Unrolled:
        """Where it started, with a tally that is no constant, or the meta-gradient would be one too."""
        tally = jax.eval_shape(super().unroll, theta, problem, inner, key).tally
        return Unrolled(inner, jax.tree.map(lambda x: jnp.full(x.shape, problem.step, x.dtype), tally))


class Training:
    """Outer steps of a configuration with any optimizer in the place of its own."""

    def __init__(
        self,
        config: Config,
        optimizer: LearnedOptimizer,
        count: int | None = None,
        clock: Clock = time.perf_counter,
        unroller: type[Unroller] = Unroller,
    ) -> None:
        """On `count` devices, or all. Compiles, and takes the first outer step."""
        theta = optimizer.init(jax.random.key(config.seed))
        self.unroller = unroller(
            family=task_registry.family(config.tasks[0]),
            optimizer=optimizer,
            objective=config.objective(),
            truncation=config.truncation,
            horizons=config.horizons(),
        )
        estimator = PES(unroller=self.unroller, perturbation=config.perturbation(theta))
        component = Component(estimator, config.particles)
        self.steps = OuterSteps([component], config.outer_optimizer(), devices(count, config.particles))
        self.key = jax.random.key(1)
        started = clock()
        self.outer = self.steps.init_outer(theta)
        self.states = self.steps.init(self.key, self.outer.theta)
        self.step()
        self.first_seconds = clock() - started

    def step(self, count: int = 1) -> dict[str, Any]:
        """Outer steps in one call, their metrics on the host."""
        self.outer, self.states, metrics = self.steps.run(self.outer, self.states, self.key, 0, count)
        return jax.device_get(metrics)


def measure(repeats: int, clock: Clock, config: Config | None = None) -> Iterator[Throughput]:
    """One row. Devices are compared on the wall's clock, as they work at the same time."""
    config = config or quickstart()
    ours = Training(config, registry.make(config.optimizer, config.optimizer_options), clock=clock)
    floor = Training(config, StepSize(start=0.01))
    still = Training(config, ours.unroller.optimizer, unroller=Still)
    count = len(ours.steps.devices)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        writer = stack.enter_context(contextlib.closing(MetricsWriter(Path(folder), 0)))

        def outer_step(training: Training) -> Callable[[], Any]:
            def run() -> None:
                metrics = training.step(MOST)
                for i in range(MOST):
                    writer.write(i, {name: float(np.mean(values[i])) for name, values in metrics.items()})

            return run

        runs = {"star": outer_step(ours), "floor": outer_step(floor), "still": outer_step(still)}
        jax.block_until_ready([run() for run in runs.values()])
        with _counted_compilations() as compilations:
            found = interleaved(runs, "star", repeats, clock)
        devices_ratio, with_all_cores = None, None
        if count > 1 and hasattr(os, "sched_setaffinity"):
            alone = outer_step(Training(config, ours.unroller.optimizer, 1))
            against = interleaved({"all": runs["star"], "alone": alone, "core": _on_one_core(alone)}, "all", repeats)
            devices_ratio, with_all_cores = against["core"].median, against["alone"].median
    steps = MOST * 2 * config.particles * config.truncation
    seconds = found["floor"].floor_seconds
    yield Throughput(
        devices=count,
        steps_per_second=steps / seconds,
        floor_steps_per_second=steps / found["floor"].seconds,
        floor_share=found["floor"].median,
        outside_share=found["still"].median,
        devices_ratio=devices_ratio,
        with_all_cores=with_all_cores,
        compile_seconds=ours.first_seconds - seconds / MOST,
        recompilations=len(compilations),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def _on_one_core(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same with every thread of this process on one core: what one device adds is otherwise not to be seen."""

    def pin(cores: set[int]) -> None:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.sched_setaffinity(int(thread), cores)

    def pinned() -> Any:
        cores = os.sched_getaffinity(0)
        pin({min(cores)})
        try:
            return run()
        finally:
            pin(cores)

    return pinned


@contextlib.contextmanager
def _counted_compilations() -> Iterator[list[float]]:
    """The seconds of every compilation in the meantime."""
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
