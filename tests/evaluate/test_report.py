import dataclasses
import io
import json
import re
import sys

import made
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from learned_opt.errors import UsageError
from learned_opt.evaluate import curves, report
from learned_opt.evaluate.provenance import plain
from learned_opt.evaluate.report import data, figures, page, terminal, words
from learned_opt.evaluate.scores import Curves
from learned_opt.evaluate.statistics import Ratios
from learned_opt.evaluate.summary import RATIOS, SPEED_UPS, Summary


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    directory = tmp_path_factory.mktemp("out") / "new" / "folder"
    report.write(results, directory)
    return directory


@pytest.fixture(scope="module")
def summary():
    return Summary(made.results(more=("lion",)))


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_json_is_valid_though_runs_diverged(written, results):
    content = json.loads((written / "results.json").read_text(), parse_constant=refuse)
    diverged = content["tasks"]["tiny"]["adam@1e38"]["horizons"]["20"]
    assert diverged["mean_loss"] is diverged["test_loss"] is None
    assert (diverged["diverged"], diverged["divergence_rate"]) == (3, 1.0)
    assert diverged["mean_loss_by_seed"] == [None] * 3
    summary = content["summary"]["adam@1e38"]["20"]
    assert summary["mean_loss"]["geometric_mean"] is None
    assert summary["divergence_rate"] == 1
    assert summary["against_tuned_adam"]["final_loss"]["diverged"] == 6
    assert summary["against_tuned_adam"]["final_loss"]["iqm"]["value"] == pytest.approx(0.1)
    assert content["comparisons"]["adam@1e38"]["adam"]["20"]["probability_of_improvement"]["final_loss"]["value"] == 0
    tuned = content["tasks"]["tiny"]["adam-tuned"]["horizons"]["20"]
    assert tuned["final_loss"] == min(tuned["final_loss_by_rate"])
    assert tuned["rate"] in content["contenders"]["adam-tuned"]["rates"]
    assert tuned["rate_at_edge"] is False
    itself = content["summary"]["adam-tuned"]["20"]["against_tuned_adam"]
    same = {name for name in RATIOS if not name.startswith("one_sided")}
    assert all(itself[name]["iqm"] == {"value": 1, "low": 1, "high": 1} for name in same)
    one_sided = {name: itself[name]["iqm"]["value"] for name in set(RATIOS) - same}
    assert all(0.5 < value <= 1 for value in one_sided.values())  # a noisy curve touches its end early
    assert content["contenders"]["meta"]["sha256"] == "abc"
    assert content["contenders"]["meta"]["max_horizon"] == 15
    assert set(content["versions"]) == {"learned-opt", "jax", "optax", "numpy"}
    assert content["machine"]["cpu_count"] > 0
    assert content["wall_seconds"] > 0
    assert sys.argv[0] in content["command"]


def test_json_has_every_figure_of_every_task(summary):
    content = json.loads(json.dumps(plain(data.as_dict(summary)), allow_nan=False))
    found = content["comparisons"]["meta"]["adam-tuned"]["4000"]
    assert set(found["ratios"]) == set(RATIOS)
    for ratios in found["ratios"].values():
        assert list(ratios["tasks"]) == list(made.TASKS)
        assert {len(ratios["tasks"]["wine-mlp"][name]) for name in Ratios._fields} == {4}
    assert found["ratios"]["final_loss"]["tasks"]["cart_pole-mlp-balance"]["diverged"] == [False, True, False, False]
    assert found["ratios"]["speed_up"]["at_least"] > 0
    assert found["tasks_lost"]["final_loss"] == ["rosenbrock-10d"]
    assert len(found["tasks_won"]["final_loss"]) == 5
    assert content["skipped"] == {"poisson-mlp": "it needs what is not here"}
    assert set(content["performance_profiles"]) == {"tau", "steps", "seconds"}


def test_a_speed_up_is_what_was_put_in(summary):
    """Losses fall as 1 / sqrt(step): a loss that is k times lower takes k^2 times the steps."""
    found = summary.compared("meta", "adam-tuned", 200).ratios
    loss, speed, one_sided = (found[name].by_task.value[0] for name in ("final_loss", "speed_up", "one_sided_speed_up"))
    assert speed == pytest.approx(loss**2, rel=0.1)
    assert one_sided == pytest.approx(loss**2, rel=0.1)
    assert not found["speed_up"].bounds[0]
    latest = summary.compared("meta", "adam-tuned", 4000).ratios
    assert (latest["one_sided_speed_up"].ratios.values <= 1).all()  # Adam was trained for no longer
    assert latest["one_sided_speed_up"].bound == latest["speed_up"].bound == "\u2265"
    assert latest["speed_up"].overall.value > 1  # from the other side it is seen


@pytest.mark.parametrize("measure", ["final_loss", "valid_loss"])
def test_a_sweep_is_as_fast_as_the_fastest_of_its_best(measure):
    """The rate of the longest horizon is a quarter as fast as the one of the shortest."""
    results = made.results(tasks=("wine-mlp",))
    runs = results.runs["wine-mlp"]
    steps, at = np.arange(1, 4001), runs["adam-tuned"].longest.valid_steps

    def needed(speed_of):
        found = {h: made_curves(k, steps, at) for h, k in speed_of.items()}
        runs["adam-tuned"] = dataclasses.replace(runs["adam-tuned"], curves=found)
        return Summary(results).steps_to_match("adam-tuned", "meta", 200, measure)

    slow = needed({200: 1, 1000: 1, 4000: 1})
    assert (slow > 200).all()
    np.testing.assert_allclose(needed({200: 4, 1000: 1, 4000: 1}), slow / 4, rtol=0.05)
    np.testing.assert_allclose(needed({200: 1, 1000: 4, 4000: 1}), slow / 4, rtol=0.05)


def made_curves(speed, steps, at):
    losses = np.tile((speed * steps) ** -0.5, (made.SEEDS, 1))
    return Curves(losses=losses, valid_steps=at, valid_losses=1.3 * losses[:, at - 1])


def test_losses_below_their_floor_are_said():
    """A ratio cannot tell them apart: ELBOs, or losses less a constant. All but three, of a seed that diverged."""
    results = made.results(tasks=("wine-mlp", "iris-linear"))
    assert not words.below_floor(Summary(results))
    results.floors["iris-linear"] = 10.0
    summary = Summary(results)
    assert words.below_floor(summary) == f"iris-linear (105 of {3 * 3 * 3 * made.SEEDS})"
    assert (summary.compared("meta", "adam", 200).ratios["final_loss"].ratios.values[1] == 1).all()
    for text in ("\n".join(terminal.lines(summary)), page.markdown(summary), page.html(summary)):
        assert "iris-linear (105 of 108)" in text
    last = page.markdown(summary).split("## How this was made\n\n")[1]
    assert all(line.startswith("- ") and line.count("- ") == 1 for line in last.strip().splitlines())


def test_adam_needs_its_own_steps_to_match_itself(summary):
    for horizon in made.HORIZONS:
        np.testing.assert_array_equal(summary.compared("adam", "adam", horizon).ratios["final_loss"].ratios.values, 1)
        np.testing.assert_array_equal(summary.compared("adam", "adam", horizon).ratios["speed_up"].ratios.values, 1)
        assert (summary.compared("adam", "adam", horizon).ratios["one_sided_speed_up"].ratios.values <= 1).all()


def test_swapping_sides_inverts_speed_ups(summary):
    here, there = (summary.compared(*pair, 200).ratios for pair in (("meta", "adam-tuned"), ("adam-tuned", "meta")))
    for name in SPEED_UPS:
        assert here[name].overall.value == pytest.approx(1 / there[name].overall.value)


def test_tuned_adam_reaches_its_own_loss(summary):
    profile = summary.profiles["steps"]
    assert list(profile) == summary.labels
    alone = Summary(made.results(tasks=("wine-mlp",)))
    assert alone.profiles["steps"]["adam"][-1] == 0  # it never gets there
    assert alone.profiles["steps"]["meta"][0] == 1


def test_the_picture_is_a_picture(written):
    image = Image.open(written / "curves.png")
    image.load()
    assert image.size[0] > 1000
    assert image.size[1] > 400
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50
    for colour in (curves.COLOURS[0], curves.BASELINES["adam-tuned"][0]):  # the curves are there
        assert (pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum() > 50


def test_files_are_replaced_only_when_the_new_ones_are_whole(written, results, monkeypatch):
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    assert set(before) == {"results.json", "report.html", "report.md", "curves.png"}
    monkeypatch.setattr(curves, "png", lambda results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(results, written)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=f"^{path}: cannot be made a directory"):
            report.prepare(path)


def test_the_verdict_and_losses_to_tuned_adam_are_said_first(results):
    console = Console(file=io.StringIO(), width=250, soft_wrap=True)
    report.show(results, console)
    text = console.file.getvalue()
    verdict, first, *_ = text.splitlines()
    assert verdict.startswith("After 20 steps, meta has a final training loss ")
    assert first.startswith("meta loses to tuned Adam in mean training loss: ")
    assert "; final training loss: everywhere; validation loss: " in first
    assert "adam@1e38 loses to tuned Adam in mean training loss: everywhere; final training loss: everywhere" in text
    assert "adam-tuned: best learning rate at an edge of its sweep: " in text
    assert re.search("adam@1e38 +inf / inf / inf / inf", text)
    assert "100%" in text
    for row in ("meta", "adam@1e-3", "adam@1e38", "adam", "adam-tuned"):
        tables = 4 - (row in ("adam-tuned", "adam@1e38"))  # no ratio to itself by horizon; infinite means
        assert sum(re.match(rf" *{row} +[\d≥-]", line) is not None for line in text.splitlines()) == tables


def test_an_edge_of_a_sweep_is_named(summary):
    runs = summary.results.runs["wine-mlp"]
    best = runs["adam-tuned"].scores[1000]
    edge = type(best)(**{**vars(best), "best": 0})
    runs["adam-tuned"].scores[1000] = edge
    try:
        text = page.markdown(Summary(summary.results))
    finally:
        runs["adam-tuned"].scores[1000] = best
    assert "- adam-tuned: best rate at an edge of the sweep: wine-mlp (1000)" in text


def test_most_of_the_tasks_are_said_by_those_that_are_left(summary):
    everything = {task: list(summary.results.horizons) for task in summary.tasks}
    first = summary.tasks[0]
    most = everything | {first: [200]}
    assert words.listed(summary, everything) == "everywhere"
    assert words.listed(summary, {}) == "nowhere"
    assert words.listed(summary, most) == f"everywhere but {first} (1000, 4000)"
    assert words.listed(summary, {first: [200]}) == f"{first} (200)"


def test_markdown_says_the_same(summary):
    text = page.markdown(summary)
    assert text.splitlines()[0] == "# meta against tuned Adam"
    assert text.splitlines()[2].startswith("After 4000 steps, meta has a lower final training loss (ratio 1.")
    assert text.index("loses to Adam tuned for each task") < text.index("| optimizer | training loss |")
    assert "final training loss: rosenbrock-10d (200, 1000, 4000)" in text
    assert "- Skipped tasks: poisson-mlp: it needs what is not here" in text
    assert "ab" * 32 in text
    assert sys.argv[0] in text
    for contender in summary.results.contenders:
        assert f"- {contender.label}: {contender.tuning}" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 40
    assert all(row.rstrip().endswith("|") for row in rows)


def test_only_adam_or_one_seed_or_one_horizon_make_a_report_too(tmp_path):
    lonely = made.results(tasks=("iris-linear",), horizons=(20,), seeds=1)
    report.write(lonely, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "nan" not in text
    assert re.search(r"\| meta \| \d\.\d\d \|", text)  # no interval
    assert "[" not in next(line for line in text.splitlines() if line.startswith("| meta |"))
    only = lonely.__class__(**{**vars(lonely), "contenders": lonely.contenders[1:]})
    only = only.__class__(
        **{**vars(only), "runs": {t: {k: v for k, v in r.items() if k != "meta"} for t, r in only.runs.items()}}
    )
    report.write(only, tmp_path)
    assert "Only rows of Adam took part: adam, adam-tuned." in (tmp_path / "report.html").read_text()


def test_names_are_escaped():
    text = page.html(Summary(made.results(tasks=("<script>&task",), horizons=(20, 40))))
    assert "<script" not in text
    assert "&lt;script&gt;&amp;task" in text


def test_pictures_share_no_ids(summary):
    drawn = [figures.training_curves(summary, task) for task in made.TASKS[:2]]
    drawn += [figures.dots(summary, "speed_up", 1000), figures.profile(summary, "steps")]
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in drawn]
    assert len(set().union(*ids)) == sum(map(len, ids))
    for svg, own in zip(drawn, ids, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^")]*)', svg)) <= own
        assert "http" not in svg.replace("http://www.w3.org/", "")


def test_smoothing_is_how_final_losses_are_taken():
    losses = np.random.default_rng(0).random((2, 435))
    expected = [losses[:, max(0, t - max(10, t // 20)) : t].mean(1) for t in range(1, 436)]
    np.testing.assert_allclose(curves.smoothed(losses), np.stack(expected, 1))
    losses[0, 7] = np.nan
    smoothed = curves.smoothed(losses)
    assert np.isfinite(smoothed[0, :7]).all()
    assert np.isinf(smoothed[0, 7:]).all()
    assert np.isfinite(smoothed[1]).all()
    run = made.results(tasks=("iris-linear",)).runs["iris-linear"]["adam"]
    for horizon, score in run.scores.items():
        np.testing.assert_allclose(curves.smoothed(run.longest.losses)[:, horizon - 1], score.final_loss, rtol=1e-5)
