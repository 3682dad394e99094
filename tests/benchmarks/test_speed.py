"""What `learned-opt speed` measures, and how."""

import contextlib
import json
import time

import pytest

from learned_opt import cli
from learned_opt.benchmarks import timing
from learned_opt.benchmarks.target import Target
from learned_opt.commands import cores


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices have been looked at already."""
    monkeypatch.setattr(cores, "use_cores", lambda devices: None)


def test_ratios_are_against_the_floor_of_the_same_round() -> None:
    """A run that sleeps three times as long as its floor; every run is called once a round, the first round unseen."""
    calls = []

    def sleep(name: str, seconds: float):
        def run() -> None:
            calls.append(name)
            time.sleep(seconds)

        return run

    found = timing.interleaved({"floor": sleep("floor", 0.05), "slow": sleep("slow", 0.15)}, "floor", repeats=5)
    assert list(found) == ["slow"]
    assert 2.5 < found["slow"].median < 3.2
    assert found["slow"].lower <= found["slow"].median <= found["slow"].upper
    assert calls[:4] == ["floor", "slow", "slow", "floor"]
    assert len(calls) == 12


def test_processor_time_leaves_out_waiting() -> None:
    """Both work alike; one sleeps as well."""

    def work(seconds: float):
        def run() -> None:
            time.sleep(seconds)
            sum(range(500_000))

        return run

    found = timing.interleaved({"floor": work(0.0), "waits": work(0.2)}, "floor", 5, time.process_time)
    assert 0.5 < found["waits"].median < 2
    assert found["waits"].seconds < 0.1


@pytest.mark.slow
def test_the_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):  # passed or not
        cli.main(["speed", "--repeats", "2", "--steps", "1", "--most-parameters", "10000"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["name"] for row in found["metaoptimize"]} >= {"metaoptimize(AdamW, Adam)"}
    assert all(row["ratio"] > 0 for row in found["metaoptimize"])
    assert {row["tree"] for row in found["update"]} >= {"1e4 parameters"}
    assert found["meta-training"][0]["recompilations"] == 0
    assert found["meta-training"][0]["floor_share"] > 0
    assert found["passed"] == all(target["passed"] for target in found["targets"])


def test_the_cost_of_an_update_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """On the smallest tree, which has no limit: status 0."""
    cli.main(["speed", "--repeats", "2", "--parts", "update", "--most-parameters", "10000", "--clock", "processor"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = found["update"]
    assert (row["tree"], row["parameters"], row["tensors"]) == ("1e4 parameters", 10_062, 6)
    assert row["ratio"] > 0
    assert row["peak_bytes"] > row["moved_bytes"] / 2 > 2 * 10_062 * 4
    assert found["passed"]
    assert found["targets"] == []


def test_targets_say_whether_they_are_met() -> None:
    assert Target("share", 0.206, 0.5, True, "why").line() == "FAIL  share: 0.206 (at least 0.5); why"
    assert Target("ratio", 4.0, 4).line() == "pass  ratio: 4 (at most 4)"


def test_bad_flags_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["speed", "--repeats", "0"])
    assert end.value.code == 2
    assert "--repeats was given 0: a number from 1 is accepted" in capsys.readouterr().err
