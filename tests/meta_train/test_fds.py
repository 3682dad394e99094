"""FDS from end to end: the outer step, sign descent, resume, presets that can be loaded again."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import learned_opt
from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.errors import UsageError
from learned_opt.evaluate.reproduce.teacher_task import teacher_task
from learned_opt.meta_train import cost
from learned_opt.meta_train.fds import FDS, FDSTrainer
from learned_opt.meta_train.fds_config import FDSConfig
from learned_opt.meta_train.hypergradient import WholeRun
from learned_opt.meta_train.presets import fds_adamw, fds_sgd, fds_star
from learned_opt.meta_train.sign_descent import converged, rprop, sign_descent
from learned_opt.schedules import Schedule, ScheduledStar, as_schedule, window_starts

pytestmark = pytest.mark.usefixtures("quick_programs")
TASK = "digits-linear"
NAMES = ("learning_rate", "momentum", "weight_decay")


def config(**changes: Any) -> FDSConfig:
    values = {f: getattr(fds_sgd(), f) for f in fds_sgd().__dataclass_fields__}
    windows = {"learning_rate": 2, "momentum": 1, "weight_decay": 1}
    small = {"task": TASK, "windows": windows, "steps": 20, "outer_steps": 3, "evaluations": 2, "mode": "forward"}
    return FDSConfig(**values | small | changes)


def quiet() -> Console:
    return Console(quiet=True)


def test_sign_descent_halves_at_a_flip_and_ignores_what_is_not_finite() -> None:
    """The published rule, step by step."""
    outer = sign_descent({"a": 0.1, "b": 1.0})
    theta = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    state, path = outer.init(theta), []
    gradients = [([-5.0, 1e-9], [jnp.nan]), ([3.0, 2.0], [-1.0]), ([-1.0, 0.0], [1.0]), ([-1.0, -1.0], [1.0])]
    for a, b in gradients:
        updates, state = outer.update({"a": jnp.array(a), "b": jnp.array(b)}, state, theta)
        theta = optax.apply_updates(theta, updates)
        path.append([*theta["a"].tolist(), *theta["b"].tolist()])
    expected = [[0.1, -0.1, 0.0], [0.05, -0.2, 1.0], [0.075, -0.2, 0.5], [0.1, -0.1, 0.0]]
    np.testing.assert_allclose(path, expected, atol=1e-6)
    assert not converged(state, theta)
    small = state._replace(steps={"a": jnp.full(2, 1e-3), "b": jnp.full(1, 1e-3)})
    assert not converged(small, theta)  # b is at zero
    assert converged(small, {"a": jnp.ones(2), "b": -jnp.ones(1)})


def test_rprop_grows_while_a_sign_stays_and_waits_where_it_flips() -> None:
    outer = rprop({"a": 0.1})
    theta = {"a": jnp.zeros(1)}
    state, path = outer.init(theta), []
    for gradient in (-1.0, -7.0, 3.0, 1e-9, 2.0, -1.0, 0.0, jnp.inf, -4.0):
        updates, state = outer.update({"a": jnp.array([gradient])}, state, theta)
        theta = optax.apply_updates(theta, updates)
        path.append(float(theta["a"][0]))
    # Steps 0.1, 0.12; 0.06 from the flip on, and 0.072; 0.036 from the second; nothing came before the last.
    np.testing.assert_allclose(path, [0.1, 0.22, 0.22, 0.16, 0.088, 0.088, 0.088, 0.088, 0.124], rtol=1e-5)


def test_schedules_are_piecewise_constant_and_stretch() -> None:
    values = jnp.array([0.3, 0.2, 0.1])
    found = as_schedule(values, 10)
    np.testing.assert_allclose([found(i) for i in range(12)], [0.3] * 4 + [0.2] * 3 + [0.1] * 5)
    assert window_starts(3, 10).tolist() == [0, 4, 7]
    both = learned_opt.as_schedule({"learning_rate": values, "momentum": jnp.array([0.9])}, 30)
    np.testing.assert_allclose([both["learning_rate"](i) for i in (9, 10, 29)], [0.3, 0.2, 0.1])
    assert float(both["momentum"](17)) == pytest.approx(0.9)


def test_what_was_found_works_in_any_training_script() -> None:
    """`optax.sgd` with the schedule as its learning rate is the learned optimizer with the same windows."""
    rates = jnp.array([0.3, 0.1])
    theta = {"learning_rate": rates, "momentum": jnp.zeros(1), "weight_decay": jnp.zeros(1)}
    mine = Schedule(windows=(2, 1, 1), steps=6).transform(theta)
    plain = optax.sgd(as_schedule(rates, 6))
    params = grads = jnp.array([1.0, -2.0])
    a, b = mine.init(params), plain.init(params)
    for _ in range(6):
        (u, a), (v, b) = mine.update(grads, a, params), plain.update(grads, b, params)
        np.testing.assert_allclose(u, v, rtol=1e-6)


def test_windows_of_one_leave_star_as_it_is() -> None:
    star, scheduled = learned_opt.Star(nominal_scale=0.1), ScheduledStar(nominal_scale=0.1, windows=(2, 2), steps=4)
    theta = scheduled.init(jax.random.key(0))
    params, grads = jnp.ones((3, 2)), jnp.arange(6.0).reshape(3, 2)
    a, b = star.transform(star.init(jax.random.key(0))), scheduled.transform(theta)
    expected, found = (o.update(grads, o.init(params), params)[0] for o in (a, b))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    doubled = scheduled.transform(theta | {"nominal": jnp.full(2, 2.0)})
    assert np.abs(doubled.update(grads, doubled.init(params), params)[0] - expected).max() > 1e-3


def test_an_outer_step_averages_finite_seeds_and_keeps_ranges() -> None:
    """An infinite rate is finite on no seed: counted, and nothing moves; a range holds what would leave it."""
    run = WholeRun(optimizer=Schedule(windows=(2, 1, 1), steps=10), evaluations=2)
    ranges = {"learning_rate": np.inf, "momentum": 0.999, "weight_decay": 1.0}
    low = dict.fromkeys(ranges, 0.0)
    fds = FDS(run=run, outer=sign_descent(dict.fromkeys(ranges, 0.1)), lowest=low, highest=ranges, seeds=3)
    task, step = teacher_task(), jax.jit(fds.step)
    theta = {"learning_rate": jnp.full(2, 0.1), "momentum": jnp.array([0.95]), "weight_decay": jnp.zeros(1)}
    done = step(task, theta, fds.init(theta), jax.random.key(0))
    assert done.dropped == 0
    single = jax.jit(fds.hypergradient)
    singles = [single(task, theta, key).gradient["learning_rate"] for key in jax.random.split(jax.random.key(0), 3)]
    mean = np.mean(singles, 0)
    np.testing.assert_allclose(done.hypergradient["learning_rate"], mean, rtol=1e-4)
    np.testing.assert_allclose(done.theta["learning_rate"], 0.1 - 0.1 * np.sign(mean), atol=1e-6)
    assert float(done.theta["momentum"][0]) <= np.float32(0.999)
    broken = theta | {"learning_rate": jnp.full(2, jnp.inf)}
    done = step(task, broken, fds.init(broken), jax.random.key(0))
    assert done.dropped == 3
    np.testing.assert_array_equal(done.theta["learning_rate"], broken["learning_rate"])
    assert np.isnan(done.loss)


def test_momentum_does_not_move_on_where_no_run_is_finite() -> None:
    """After one good step, neither the windows nor the state of Adam."""
    run = WholeRun(optimizer=Schedule(windows=(2, 1, 1), steps=10), evaluations=2)
    ranges = dict.fromkeys(NAMES, np.inf)
    fds = FDS(run=run, outer=optax.adam(0.1), lowest=dict.fromkeys(NAMES, 0.0), highest=ranges)
    task, step = teacher_task(), jax.jit(fds.step)
    theta = {"learning_rate": jnp.full(2, 0.1), "momentum": jnp.array([0.5]), "weight_decay": jnp.zeros(1)}
    good = step(task, theta, fds.init(theta), jax.random.key(0))
    assert good.theta["momentum"] != theta["momentum"]
    broken = good.theta | {"learning_rate": jnp.full(2, jnp.inf)}
    done = step(task, broken, good.opt_state, jax.random.key(1))
    assert done.dropped == 1
    assert jax.tree.all(jax.tree.map(np.array_equal, (done.theta, done.opt_state), (broken, good.opt_state)))


def test_a_run_without_a_finite_end_leaves_no_artifact(tmp_path: Path) -> None:
    """Started again, it ends as before."""
    diverges = {"learning_rate": 1e30, "momentum": 0.0, "weight_decay": 0.0}
    for _ in range(2):
        trainer = FDSTrainer(config(start=diverges, highest=dict.fromkeys(NAMES, 1e30)), tmp_path / "run", quiet())
        with pytest.raises(FloatingPointError, match=r"no run of .* was finite in the last 3 outer steps"):
            trainer.train()
        assert not (tmp_path / "run/card.json").exists()


def test_a_run_ends_loads_and_resumes(tmp_path: Path) -> None:
    """A run cut after its first outer step and started again ends bit for bit as one that was not."""
    trainer = FDSTrainer(config(), tmp_path / "whole", quiet())
    whole = trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert {"clamped", "dropped", "at_bound", "learning_rate/1", "hypergradient/momentum/0"} <= set(lines[0])

    FDSTrainer(config(), tmp_path / "cut", quiet()).train()
    (tmp_path / "cut/card.json").unlink()
    (tmp_path / "cut/theta.npz").unlink()
    for later in (2, 3):
        shutil.rmtree(tmp_path / f"cut/checkpoints/{later}")
    resumed = FDSTrainer(config(), tmp_path / "cut", quiet()).train()
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])

    optimizer, theta, card = load_learned_optimizer(tmp_path / "whole")
    assert optimizer == Schedule(windows=(2, 1, 1), steps=20)
    assert card["mode"] == "forward"
    np.testing.assert_array_equal(theta["learning_rate"], whole["learning_rate"])
    found = trainer.retrain(whole)
    assert len(found["test"]) == 4
    assert np.mean(found["test"]) < 2.3
    with pytest.raises(UsageError, match="holds a run with steps 20, and 30 was given"):
        FDSTrainer(config(steps=30), tmp_path / "whole", quiet())


@pytest.mark.parametrize(("memory", "mode"), [(2**30, "reverse"), (1, "forward")])
def test_costs_and_the_choice_are_printed_before_the_run(
    memory: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mode is the cheaper one that fits, and in the card that the run ends with."""
    monkeypatch.setattr(cost, "MEMORY", memory)
    trainer = FDSTrainer(config(mode="auto", outer_steps=1), tmp_path / "run", Console(soft_wrap=True))
    trainer.train()
    first, second = capsys.readouterr().out.splitlines()
    number = r"[\d.e+-]+"
    costs = f"{number} Gflop and {number} MB"
    assert re.fullmatch(f"a hypergradient costs {costs} forward, {costs} in reverse; using {mode}", first)
    assert second.startswith("outer step 1/1")
    assert load_learned_optimizer(tmp_path / "run")[2]["mode"] == mode


@pytest.mark.slow
@pytest.mark.parametrize("make", [fds_adamw, fds_star])
def test_other_optimizers_get_better(make: Any, tmp_path: Path) -> None:
    values = {f: getattr(make(), f) for f in make().__dataclass_fields__}
    short = FDSConfig(**values | {"task": TASK, "steps": 50, "outer_steps": 4})
    FDSTrainer(short, tmp_path / "run", quiet()).train()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert min(losses[1:]) < losses[0]
    assert load_learned_optimizer(tmp_path / "run")[0].names == short.names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps was given 0"),
        ({"clamp": 1.0, "mode": "auto"}, "--clamp was given 1.0 and --mode auto"),
        (
            {"start": {"learning_rate": 2.0, "momentum": 0.0, "weight_decay": 0.0}},
            "--start was given learning_rate 2.0",
        ),
        ({"stop_at": float("nan")}, "--stop-at was given nan"),
        ({"first_step": dict.fromkeys(NAMES, float("nan"))}, "--first-step was given learning_rate nan"),
        ({"first_step": dict.fromkeys(NAMES, -0.1)}, "--first-step was given learning_rate -0.1"),
        ({"retrain_steps": 1}, "--retrain-steps was given 1: learning_rate has 2 windows"),
        ({"windows": {"rate": 3}}, "unknown hyperparameter in --windows 'rate'"),
    ],
)
def test_bad_configurations_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**changes)
