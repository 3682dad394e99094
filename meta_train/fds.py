"""Forward-mode differentiation with sharing: schedules found by training to the end, again and again (2007.07869)."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from learned_opt.base import Theta
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.checkpoints.store import CheckpointStore
from learned_opt.errors import UsageError
from learned_opt.meta_train.cost import predict
from learned_opt.meta_train.fds_config import FDSConfig
from learned_opt.meta_train.health import Health
from learned_opt.meta_train.hypergradient import Hypergradient, WholeRun
from learned_opt.meta_train.interrupt import Interruptible
from learned_opt.meta_train.metrics import MetricsWriter
from learned_opt.meta_train.run_directory import circumstances, open_run_directory
from learned_opt.meta_train.sign_descent import SignDescentState, converged
from learned_opt.star import Star
from learned_opt.tasks import registry as task_registry
from learned_opt.tasks.base import TaskFamily


class OuterStep(NamedTuple):
    """One outer step: theta and outer optimizer after it, and what it saw.

    loss: at the end of the runs, over finite ones. dropped: runs that were not finite. clamped: share of entries.
    at_bound: windows held at the end of their range.
    """

    theta: Theta
    opt_state: optax.OptState
    hypergradient: dict[str, jax.Array]
    loss: jax.Array
    dropped: jax.Array
    clamped: jax.Array
    at_bound: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class FDS:
    """The outer step, pure: `vmap` it for several outer runs.

    Attributes:
        run: the inner run and its hypergradient.
        outer: on the windows.
        lowest, highest: hard ranges, by hyperparameter.
        seeds: runs averaged in each outer step.
        mode: of the hypergradient, `forward` or `reverse`.
    """

    run: WholeRun
    outer: optax.GradientTransformation
    lowest: dict[str, float]
    highest: dict[str, float]
    seeds: int = 1
    mode: str = "forward"

    def init(self, theta: Theta) -> optax.OptState:
        """The state of the outer optimizer."""
        return self.outer.init(self.run.split(theta)[0])

    def step(self, family: TaskFamily, theta: Theta, opt_state: optax.OptState, key: jax.Array) -> OuterStep:
        """Fresh starts and minibatches; a hypergradient of which no run is finite moves nothing."""
        found = jax.vmap(lambda key: self.hypergradient(family, theta, key))(jax.random.split(key, self.seeds))
        finite = jnp.isfinite(found.loss)
        for leaf in jax.tree.leaves(found.gradient):
            finite &= jnp.isfinite(leaf).all(1)
        number = jnp.maximum(finite.sum(), 1)

        def mean(x: jax.Array) -> jax.Array:
            return jnp.where(finite.reshape(-1, *[1] * (x.ndim - 1)), x, 0).sum(0) / number.astype(x.dtype)

        found = jax.tree.map(mean, found)
        windows, rest = self.run.split(theta)
        moves, moved = self.outer.update(found.gradient, opt_state, windows)
        wanted = optax.apply_updates(windows, moves)
        new = {name: jnp.clip(x, self.lowest[name], self.highest[name]) for name, x in wanted.items()}
        held = jnp.asarray(sum((new[name] != wanted[name]).sum() for name in new))
        # A momentum would move windows, and shrink, on a hypergradient of zero too.
        new, moved, held = jax.tree.map(
            lambda x, old: jnp.where(finite.any(), x, old),
            (new, moved, held),
            (windows, opt_state, jnp.zeros_like(held)),
        )
        loss = jnp.where(finite.any(), found.loss, jnp.nan)
        return OuterStep(rest | new, moved, found.gradient, loss, self.seeds - finite.sum(), found.clamped, held)

    def hypergradient(self, family: TaskFamily, theta: Theta, key: jax.Array) -> Hypergradient:
        """Of one run, on one task."""
        task_key, run_key = jax.random.split(key)
        task = family.task(family.sample(task_key))
        return (self.run.forward if self.mode == "forward" else self.run.reverse)(task, theta, run_key)


class FDSTrainer:
    """Runs what an `FDSConfig` describes; killed between outer steps and started again, it ends the same."""

    def __init__(self, config: FDSConfig, run_dir: Path, console: Console | None = None) -> None:
        """Loads data and weights and opens the run directory.

        Raises:
            UsageError: a name is unknown, data is missing, or the directory holds another run; nothing is written.
        """
        self.config, self.run_dir, self.console = config, run_dir, console or Console()
        self.key = jax.random.key(config.seed)
        self.family = task_registry.family(config.task)
        self.star: Star | None = None
        self.star_theta: Theta = {}
        if config.base == "star":
            self.star, self.star_theta = _star(config.weights)
        self.optimizer = config.optimizer(star_options=self._star_options())
        self.run = WholeRun(
            optimizer=self.optimizer,
            evaluations=config.evaluations,
            gradient_clip=config.gradient_clip,
            clamp=config.clamp,
        )
        open_run_directory(dataclasses.asdict(config) | self._architecture(), run_dir)

    def train(self) -> Theta:
        """Runs, or resumes, until the steps have settled or the last outer step; leaves `theta.npz` and `card.json`.

        Raises:
            Interrupted: a signal came; everything is saved.
            FloatingPointError: no run was finite in the last outer step; there is no artifact.
        """
        if (self.run_dir / "card.json").exists():
            self.console.print(f"{self.run_dir} is complete")
            return artifact.read(self.run_dir)[0]
        fds = self._choose()
        step = jax.jit(fds.step)
        with CheckpointStore(self.run_dir / "checkpoints") as store:
            theta = self.initial_theta()
            opt_state = jax.device_get(fds.init(theta))
            seconds, first = 0.0, 0
            health = Health(self.config.tasks, (self.config.seeds,))
            state = {"opt_state": opt_state, "seconds": np.float64(0), "streaks": health.streaks}
            found = store.newest(theta, state)
            if found is not None:
                theta, opt_state, first = found.theta, found.state["opt_state"], found.step
                seconds, health.streaks = float(found.state["seconds"]), np.asarray(found.state["streaks"])
                self.console.print(f"resuming {self.run_dir} after outer step {first}")
            with contextlib.closing(MetricsWriter(self.run_dir, first)) as writer, Interruptible() as signals:
                for number in range(first, self.config.outer_steps):
                    if self._settled(theta, opt_state):
                        self.console.print(f"settled after outer step {number}")
                        break
                    started = time.monotonic()
                    done = jax.device_get(step(self.family, theta, opt_state, jax.random.fold_in(self.key, 1 + number)))
                    theta, opt_state = done.theta, done.opt_state
                    seconds += time.monotonic() - started
                    self._report(writer, number, done)
                    writer.flush()
                    health.update(done.dropped)
                    state = {"opt_state": opt_state, "seconds": np.float64(seconds), "streaks": health.streaks}
                    store.save(number + 1, theta, state)
                    signals.raise_if_received(f"saved after outer step {number + 1}")
        if not health.well:
            raise FloatingPointError(
                f"no run of {self.config.task} was finite in the last {int(health.streaks[0])} outer steps: "
                f"{self.run_dir}/metrics.jsonl has the schedules; others may be given by --start and --highest"
            )
        artifact.write(self.run_dir, theta, self._card(seconds, fds.mode))
        return theta

    def initial_theta(self) -> Theta:
        """Every window at its starting value; the weights of STAR beside them."""
        config = self.config
        windows = {n: np.full(config.windows[n], config.start[n], np.float32) for n in config.names}
        return {**self.star_theta, **windows}

    def retrain(self, theta: Theta) -> dict[str, Any]:
        """Final runs on fresh seeds, with the windows stretched over `retrain_steps`: their losses by split.

        Writes `retrain.json`.
        """
        config = self.config
        steps = config.retrain_steps or config.steps
        run = dataclasses.replace(self.run, optimizer=config.optimizer(steps, self._star_options()), clamp=None)
        keys = jax.random.split(jax.random.fold_in(self.key, 0), config.retrain_seeds)
        losses = jax.jit(jax.vmap(lambda key: self._losses(run, theta, key)))(keys)
        results = {"steps": steps, **{split: np.asarray(x, float).tolist() for split, x in losses.items()}}
        artifact.replace(self.run_dir / "retrain.json", (json.dumps(results, indent=1) + "\n").encode())
        return results

    def _losses(self, run: WholeRun, theta: Theta, key: jax.Array) -> dict[str, jax.Array]:
        task = self.family.task(self.family.sample(key))
        params = run.run(task, theta, key).params

        def one(split: Any, key: jax.Array) -> jax.Array:
            return task.loss(params, key, task.sample_batch(key, split))

        keys = jax.random.split(key, 32)
        return {s: jax.vmap(lambda key, s=s: one(s, key))(keys).mean() for s in ("train", "valid", "test")}

    def _choose(self) -> FDS:
        """Forward or reverse, by what they will cost, unless it is asked for."""
        config = self.config
        task = self.family.task(jax.tree.map(jnp.asarray, self.family.sample(self.key)))
        prediction = predict(self.run, task, self.initial_theta())
        mode = prediction.choice() if config.mode == "auto" else config.mode
        self.console.print(f"a hypergradient costs {prediction}; using {mode}", highlight=False)
        return FDS(
            run=self.run,
            outer=config.outer_optimizer(),
            lowest=config.lowest,
            highest=config.highest,
            seeds=config.seeds,
            mode=mode,
        )

    def _settled(self, theta: Theta, opt_state: Any) -> bool:
        if not isinstance(opt_state, SignDescentState):
            return False
        return bool(converged(opt_state, self.run.split(theta)[0], self.config.stop_at))

    def _report(self, writer: MetricsWriter, number: int, done: OuterStep) -> None:
        metrics = {name: float(getattr(done, name)) for name in ("loss", "dropped", "clamped", "at_bound")}
        for name in self.config.names:
            for i, (value, slope) in enumerate(zip(done.theta[name], done.hypergradient[name], strict=True)):
                metrics |= {f"{name}/{i}": float(value), f"hypergradient/{name}/{i}": float(slope)}
        writer.write(number, metrics)
        windows = "; ".join(f"{n} {' '.join(f'{x:.3g}' for x in done.theta[n])}" for n in self.config.names)
        flags = "".join(f", {int(metrics[n])} {n.replace('_', ' ')}" for n in ("dropped", "at_bound") if metrics[n])
        self.console.print(
            f"outer step {number + 1}/{self.config.outer_steps}, loss {metrics['loss']:.4f}{flags}: {windows}",
            highlight=False,
        )

    def _star_options(self) -> dict[str, Any] | None:
        return None if self.star is None else dataclasses.asdict(self.star)

    def _architecture(self) -> dict[str, Any]:
        """What rebuilds the optimizer."""
        fields = dataclasses.fields(self.optimizer)
        options = {f.name: getattr(self.optimizer, f.name) for f in fields}
        changed = {f.name: options[f.name] for f in fields if options[f.name] != f.default}
        return {"optimizer": "scheduled-star" if self.star else "schedule", "optimizer_options": changed}

    def _card(self, seconds: float, mode: str) -> dict[str, Any]:
        """What was found, and how."""
        return {
            **self._architecture(),
            "config": dataclasses.asdict(self.config),
            "tasks": list(self.config.tasks),
            "mode": mode,
            "chosen": "the last outer step; no checkpoint was selected",
            **circumstances(seconds, [device.device_kind for device in jax.devices()[:1]]),
        }


def _star(weights: str) -> tuple[Star, Theta]:
    """A pretrained STAR.

    Raises:
        UsageError: it is another optimizer.
    """
    optimizer, theta, card = load_learned_optimizer(weights)
    if not isinstance(optimizer, Star):
        raise UsageError(f"--weights was given {weights}, a {card['optimizer']}: a star is accepted")
    return optimizer, jax.device_get(theta)
