import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from learned_opt.errors import UsageError
from learned_opt.evaluate import curves, report


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    directory = tmp_path_factory.mktemp("out") / "new" / "folder"
    report.write(results, directory)
    return directory


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_json_is_valid_though_runs_diverged(written, results):
    content = json.loads((written / "results.json").read_text(), parse_constant=refuse)
    diverged = content["tasks"]["tiny"]["adam@1e38"]["horizons"]["20"]
    assert diverged["mean_loss"] is diverged["test_loss"] is None
    assert (diverged["diverged"], diverged["divergence_rate"]) == (3, 1.0)
    assert diverged["mean_loss_by_seed"] == [None] * 3
    assert content["summary"]["adam@1e38"]["20"]["mean_loss"]["geometric_mean"] is None
    tuned = content["tasks"]["tiny"]["adam-tuned"]["horizons"]["20"]
    assert tuned["final_loss"] == min(tuned["final_loss_by_rate"])
    assert tuned["rate"] in content["contenders"]["adam-tuned"]["rates"]
    assert tuned["rate_at_edge"] is False
    assert content["summary"]["adam-tuned"]["20"]["mean_loss"]["ratio_to_tuned_adam"] == 1
    assert content["contenders"]["meta"]["sha256"] == "abc"
    assert content["contenders"]["meta"]["max_horizon"] == 15
    assert set(content["versions"]) == {"learned-opt", "jax", "optax", "numpy"}
    assert content["machine"]["cpu_count"] > 0
    assert content["wall_seconds"] > 0
    assert "pytest" in content["command"]


def test_the_picture_is_a_picture(written):
    image = Image.open(written / "curves.png")
    image.load()
    assert image.size[0] > 1000
    assert image.size[1] > 400
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50
    for colour in (curves.COLOURS[0], curves.BASELINES["adam-tuned"]):  # the curves are there
        assert (pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum() > 50


def test_files_are_replaced_only_when_the_new_ones_are_whole(written, results, monkeypatch):
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    assert set(before) == {"results.json", "curves.png"}
    monkeypatch.setattr(curves, "png", lambda results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write(results, written)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=f"^{path}: cannot be made a directory"):
            report.prepare(path)


def test_losses_to_tuned_adam_are_said_first(results):
    console = Console(file=io.StringIO(), width=200)
    report.show(results, console)
    text = console.file.getvalue()
    first = text.splitlines()[0]
    assert first.startswith("meta loses to tuned Adam in mean training loss: ")
    assert "; final training loss: everywhere; validation loss: " in first
    assert "adam@1e38 loses to tuned Adam in mean training loss: everywhere; final training loss: everywhere" in text
    assert (
        "adam-tuned is the best of 15 rates, 3.2e-07 to 3.2e+00, for each task and horizon; best at an edge: " in text
    )
    assert "inf (-)" in text
    assert "100%" in text
    for row in ("meta", "adam@1e-3", "adam@1e38", "adam", "adam-tuned"):
        assert sum(line.startswith(f"│ {row} ") for line in text.splitlines()) == 2


def test_smoothing():
    losses = np.random.default_rng(0).random((2, 35))
    expected = [losses[:, max(0, t - max(1, t // 10)) : t].mean(1) for t in range(1, 36)]
    np.testing.assert_allclose(curves.smoothed(losses), np.stack(expected, 1))
    losses[0, 7] = np.nan
    smoothed = curves.smoothed(losses)
    assert np.isfinite(smoothed[0, :7]).all()
    assert np.isinf(smoothed[0, 7:]).all()
    assert np.isfinite(smoothed[1]).all()
