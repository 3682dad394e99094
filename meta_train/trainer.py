"""The outer loop: one configuration in, one run directory out."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from learned_opt import registry
from learned_opt.base import Theta
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.store import CheckpointStore
from learned_opt.errors import UsageError
from learned_opt.meta_train import estimators, start
from learned_opt.meta_train.config import Config
from learned_opt.meta_train.health import Health
from learned_opt.meta_train.interrupt import Interruptible
from learned_opt.meta_train.metrics import MetricsWriter, ProgressReport
from learned_opt.meta_train.parallel import MOST, Component, OuterState, OuterSteps
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.run_directory import circumstances, open_run_directory
from learned_opt.meta_train.unroll import Unroller
from learned_opt.tasks import registry as task_registry

SMOOTHING = 50  # outer steps over which the loss on the screen is averaged
TOGETHER = 0.25  # seconds of outer steps that go in one call, about


class MetaTrainer:
    """Meta-trains what a `Config` describes. A run killed and started again ends bit for bit the same."""

    def __init__(self, config: Config, run_dir: Path, console: Console | None = None) -> None:
        """Loads data and opens the run directory, which is created or belongs to the same configuration.

        Raises:
            UsageError: a name is unknown, data is missing, or the directory holds another run; nothing is written.
        """
        if jax.process_count() > 1:
            raise UsageError(f"MetaTrainer was started in {jax.process_count()} processes: one is accepted so far")
        self.config = config
        self.key = jax.random.key(config.seed)
        self.run_dir = run_dir
        self.console = console or Console()
        self.optimizer = registry.make(config.optimizer, config.optimizer_options)
        self.initial_theta = start.initial_theta(config, self.optimizer, jax.random.fold_in(self.key, 0))
        perturbation = config.perturbation(self.initial_theta)
        components = [self._component(name, perturbation) for name in config.tasks]
        particles = [component.particles for component in components]
        self.outer_steps = OuterSteps(
            components,
            config.outer_optimizer(),
            devices(config.devices, math.gcd(*particles)),
            config.shaping,
            config.normalise_gradients,
        )
        self.health = Health(config.tasks, particles)
        open_run_directory(dataclasses.asdict(config), run_dir)

    def train(self) -> Theta:
        """Runs, or resumes, until the last outer step, and leaves `theta.npz` and `card.json`.

        Raises:
            Interrupted: a signal came; everything is saved.
            FloatingPointError: the meta-parameters are not finite, or no particle of a family for many outer steps;
                names the step.
        """
        if (self.run_dir / "card.json").exists():
            self.console.print(f"{self.run_dir} is complete")
            return artifact.read(self.run_dir)[0]
        with CheckpointStore(self.run_dir / "checkpoints") as store:
            outer, states, first, seconds = self._restore(store)
            if first:
                self.console.print(f"resuming {self.run_dir} at outer step {first}")
            self.console.print(f"meta-training on {len(self.outer_steps.devices)} devices, compiling first")
            outer, seconds = self._loop(store, outer, states, first, seconds)
        theta = jax.device_get(outer.theta)
        artifact.write(self.run_dir, theta, self._card(seconds))
        return theta

    def _loop(
        self, store: CheckpointStore, outer: OuterState, states: Any, first: int, seconds: float
    ) -> tuple[OuterState, float]:
        """Outer steps `first` to the last; returns the end and the seconds spent in all."""
        config = self.config
        started = time.monotonic()
        losses: list[float] = []
        with (
            contextlib.closing(MetricsWriter(self.run_dir, first)) as writer,
            Interruptible() as signals,
            ProgressReport(self.console, config.steps, first) as report,
        ):
            done, each = first, math.inf  # seconds of an outer step; the first, which compiles, goes alone
            while done < config.steps:
                count, called = self._together(done, each), time.monotonic()
                outer, states, raw = self.outer_steps.run(outer, states, self.key, 2 + done, count)
                for step, metrics in enumerate(self._read(raw, done, count), done):
                    writer.write(step, metrics)
                    if metrics["skipped"]:
                        self.console.print(f"outer step {step + 1} skipped: no particle is finite")
                    else:
                        losses = [*losses, metrics["loss"]][-SMOOTHING:]
                    self.health.raise_if_hopeless(step + 1, store.newest_path)
                if done == first:
                    report.first_step_done(time.monotonic() - started)
                done, each = done + count, (time.monotonic() - called) / count
                report.step_done(done, metrics["inner_steps"], float(np.mean(losses or [np.nan])))
                # None while a family is unwell, so that the newest checkpoint is one to restart from.
                due = done % config.checkpoint_every == 0 and self.health.well
                if signals.received or due or done == config.steps:
                    writer.flush()
                    self._save(store, done, outer, states, seconds + time.monotonic() - started)
                signals.raise_if_received(f"saved after outer step {done} of {config.steps}")
        return outer, seconds + time.monotonic() - started

    def _together(self, done: int, seconds: float) -> int:
        """How many outer steps go in the next call, where one takes so many seconds; calls end at checkpoints."""
        until_due = self.config.checkpoint_every - done % self.config.checkpoint_every
        return max(1, min(round(TOGETHER / seconds), MOST, until_due, self.config.steps - done))

    def _read(self, raw: dict[str, Any], first: int, count: int) -> Iterator[dict[str, float]]:
        """Metrics of every outer step of a call as Python numbers."""
        found = jax.device_get(raw)
        for i in range(count):
            yield self._numbers({name: values[i] for name, values in found.items()}, first + i)

    def _numbers(self, metrics: dict[str, Any], step: int) -> dict[str, float]:
        families = {name: value for name, value in metrics.items() if np.ndim(value)}
        live = families["dropped"] < self.outer_steps.particles
        values = {name: float(value) for name, value in metrics.items() if not np.ndim(value)}
        for name, value in families.items():
            counted = name in ("dropped", "overflow", "underflow", "inner_steps")
            values[name] = float(value.sum() if counted else np.mean(value, where=live) if live.any() else np.nan)
            if len(self.config.tasks) > 1:
                values |= {f"{name}/{task}": float(x) for task, x in zip(self.config.tasks, value, strict=True)}
        values["skipped"] = float(self.health.update(families["dropped"]))
        values["gradient_clipped"] = float(values["gradient_norm"] > (self.config.gradient_clip or math.inf))
        values["gradient_value_clipped"] = float(values["gradient_max"] > (self.config.gradient_clip_value or math.inf))
        # The norm of theta is not finite exactly if theta is not.
        if not math.isfinite(values["theta_norm"]):
            raise FloatingPointError(f"meta-parameters are not finite after outer step {step + 1}")
        return values

    def _save(self, store: CheckpointStore, step: int, outer: OuterState, states: Any, seconds: float) -> None:
        theta, opt_state = jax.device_get(outer)
        particles = self.outer_steps.gather(states)
        state = {"opt_state": opt_state, "particles": particles, "seconds": np.float64(seconds)}
        store.save(step, theta, state | {"streaks": self.health.streaks})

    def _restore(self, store: CheckpointStore) -> tuple[OuterState, Any, int, float]:
        """Outer state, particles, the next outer step and the seconds spent so far, fresh or from a checkpoint."""
        theta = self.initial_theta
        outer = self.outer_steps.init_outer(theta)
        states = self.outer_steps.init(jax.random.fold_in(self.key, 1), outer.theta)
        like = {"opt_state": outer.opt_state, "particles": self.outer_steps.gather(states), "seconds": np.float64(0)}
        found = store.newest(theta, like | {"streaks": self.health.streaks})
        if found is None:
            return outer, states, 0, 0.0
        self.health.streaks = found.state["streaks"]
        outer = self.outer_steps.replicate(OuterState(found.theta, found.state["opt_state"]))
        return outer, self.outer_steps.scatter(found.state["particles"]), found.step, float(found.state["seconds"])

    def _component(self, task: str, perturbation: Perturbation) -> Component:
        config = self.config
        unroller = Unroller(
            family=task_registry.family(task),
            optimizer=self.optimizer,
            objective=config.objective(),
            truncation=config.truncation,
            horizons=config.horizons(),
        )
        estimator = estimators.make(config.estimator, unroller, perturbation)
        return Component(estimator, config.particles_of.get(task, config.particles), config.weight_of.get(task, 1.0))

    def _card(self, seconds: float) -> dict[str, Any]:
        """What the weights are, how they came about and how they were chosen."""
        config = self.config
        init = {"init": {"name": config.init, "sha256": config.init_sha256}} if config.init else {}
        return {
            "optimizer": config.optimizer,
            "optimizer_options": config.optimizer_options,
            **init,
            "config": dataclasses.asdict(config),
            "tasks": list(config.tasks),
            "chosen": "the last outer step; no checkpoint was selected",
            **circumstances(seconds, [device.device_kind for device in self.outer_steps.devices]),
        }


def devices(count: int | None, particles: int) -> list[jax.Device]:
    """The first `count` devices; by default as many as can share the particles equally.

    Raises:
        UsageError: there are fewer.
    """
    available = jax.devices()
    if count is None:
        count = max(n for n in range(1, len(available) + 1) if particles % n == 0)
    if count > len(available):
        raise UsageError(f"--devices was given {count}: 1 to {len(available)} are accepted here")
    return available[:count]
