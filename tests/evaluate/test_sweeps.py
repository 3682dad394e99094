"""Sweeps grow until the best is inside, or say that it is not; horizons of a cosine are runs of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_problem import OneProblem

from learned_opt.evaluate import one_rate, sweeps
from learned_opt.evaluate.cells import Store
from learned_opt.evaluate.contenders import parse
from learned_opt.evaluate.suites import Suite
from learned_opt.evaluate.trials import Counter


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Far(OneProblem):
    """|w| from a starting point, so that Adam must travel that far: its best rate is about distance by steps."""

    distance: float = 1.0

    def init(self, key):
        return jnp.full(2, self.distance)

    def loss(self, params, key, batch):
        return jnp.abs(params).sum() / self.distance


def runs(families, names, horizons=(10,), seeds=1, **kwargs):
    steps = []
    found = sweeps.runs(
        families,
        [parse(name) for name in names],
        seeds,
        horizons,
        jax.random.key(0),
        kwargs.pop("store"),
        Counter(lambda done, total: steps.append((done, total))),
        **kwargs,
    )
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    return found


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_a_sweep_grows_until_the_best_is_inside(store):
    """Ten steps of 100 and ten of 1e-9 are beyond 3e-7 to 3."""
    found = runs({"far": Far(1e3), "near": Far(1e-8), "usual": Far(1e-2)}, ["adam-tuned", "adam"], store=store)
    far, near, usual = (found[task]["adam-tuned"] for task in ("far", "near", "usual"))
    assert len(usual.rates) == 15
    assert far.rates[:15] == near.rates[-15:] == usual.rates
    assert len(far.rates) in (19, 21)
    assert len(near.rates) in (19, 21)
    for run in (far, near, usual):
        score = run.scores[10]
        assert not score.at_edge
        assert score.rate == run.rates[score.best]
        assert len(score.sweep) == len(run.rates)
        np.testing.assert_allclose(np.diff(np.log10(run.rates)), 0.5)
    assert 30 < far.scores[10].rate < 320
    assert store.counts["ran"] == 15 + len(far.rates) + len(near.rates)


def test_a_best_still_at_the_edge_is_flagged(store):
    run = runs({"farther": Far(1e8)}, ["adam-tuned"], store=store)["farther"]["adam-tuned"]
    assert len(run.rates) == 15 + sweeps.GROWTHS * sweeps.GROWTH
    assert run.scores[10].at_edge


def test_curves_of_each_horizon_are_of_the_rate_that_is_best_there(store):
    """Far away in few steps takes a higher rate than in many."""
    run = runs({"far": Far(1.0)}, ["adam-tuned"], (10, 1000), store=store)["far"]["adam-tuned"]
    assert run.scores[10].rate > run.scores[1000].rate
    for horizon, score in run.scores.items():
        window = max(10, horizon // 20)
        ends = run.curves[horizon].losses[:, horizon - window : horizon].mean(-1)
        np.testing.assert_allclose(ends, score.final_loss, rtol=1e-5)
        assert run.curves[horizon].losses.shape == (1, 1000)
    assert run.longest is run.curves[1000]


def test_each_horizon_of_a_cosine_is_a_run_of_its_own(store):
    names = ["adamw-cosine", "adamw-cosine@0.1"]
    found = runs({"usual": Far(1.0)}, names, (10, 20), store=store)["usual"]
    alone = runs({"usual": Far(1.0)}, names[1:], (10,), store=Store(store.directory / "other"))["usual"]
    assert store.counts["ran"] == 2 * 15  # 0.1 is one of them
    short, long = (found["adamw-cosine@0.1"].scores[h] for h in (10, 20))
    assert short.mean_loss == alone["adamw-cosine@0.1"].scores[10].mean_loss
    # The first step is at rate 0; at 2 of 20 steps the peak, at 1 of 10: the shorter one is ahead after 10.
    assert short.mean_loss != long.mean_loss
    assert [x.losses.shape for x in found["adamw-cosine@0.1"].curves.values()] == [(1, 10), (1, 20)]
    assert found["adamw-cosine@0.1"].longest.valid_steps[-1] == 20


def test_one_rate_for_all_tasks(store):
    suite = Suite("made", "", lambda: {"a": Far(0.1), "b": Far(1.0)}, (5, 10))
    steps = Counter(lambda done, total: None)
    found = one_rate.found(parse("adam-one-lr"), 2, store, steps, suite)
    (rate,) = found.rates
    assert found.label == "adam-one-lr"
    assert found.optimizer.name == "adam"
    assert 0.005 < rate < 0.2
    assert (
        f"{rate:.3g} on all tasks: the best of 15 learning rates by final training loss on suite made" in found.tuning
    )
    assert "(2 tasks, 2 seeds, 10 steps, other keys than here)" in found.tuning
    assert store.counts["ran"] == 30
    again = Store(store.directory)
    assert one_rate.found(parse("adam-one-lr"), 2, again, steps, suite).rates == (rate,)
    assert again.counts == {"ran": 0, "cached": 30, "damaged": 0}


def test_mean_ratio():
    losses = np.array([[2.0, 1.0, 4.0], [1.0, 3.0, np.inf]])
    np.testing.assert_allclose(one_rate.mean_ratio(losses, np.zeros(2)), [2**0.5, 3**0.5, 40**0.5])
    np.testing.assert_allclose(one_rate.mean_ratio(losses[:1], np.array([0.5])), [3, 1, 7])
    np.testing.assert_allclose(one_rate.mean_ratio(np.full((1, 2), np.inf), np.zeros(1)), [10, 10])


def test_programs_of_earlier_tasks_are_let_go(monkeypatch, store):
    """Every program takes pieces of memory, and with 65,530 of them Linux ends a process: a long suite has too many."""
    compiled = []
    monkeypatch.setattr(sweeps.batch, "forget", lambda: compiled.append(sweeps.batch.program.cache_info().currsize))
    monkeypatch.setattr(sweeps, "GROUP", 1)
    sweeps.batch.program.cache_clear()
    runs({name: Far() for name in "abc"}, ["adam@1"], store=store)
    assert compiled == [1, 1]
    monkeypatch.undo()
    sweeps.batch.forget()
    assert sweeps.batch.program.cache_info().currsize == 0


@jax.tree_util.register_static
class Bare(OneProblem):
    """No arrays of its own, one of its task and two of weights: with one of theta as many as arguments of a run."""

    def init(self, key):
        return {"w": jnp.ones(()), "b": jnp.ones(())}

    def loss(self, params, key, batch):
        return params["w"] + params["b"]


def test_a_family_without_arrays(store) -> None:
    """`pmap` took axes of arguments for axes of leaves. Adam takes its rate as a step where a gradient is constant."""
    run = runs({"bare": Bare()}, ["adam@0.1"], seeds=2, store=store)["bare"]["adam@0.1"]
    np.testing.assert_allclose(run.longest.losses, np.broadcast_to(2 - 0.2 * np.arange(10), (2, 10)), atol=1e-4)
