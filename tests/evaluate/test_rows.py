"""The frame of all reproductions."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from learned_opt import cli
from learned_opt.commands import reproduce
from learned_opt.errors import UsageError
from learned_opt.evaluate.reproduce import rows
from learned_opt.evaluate.reproduce.rows import Detail, Reproduction, Row, Settings

GOOD = Row("A-1", "a ratio", "<= 2", "1.5", True, published="1.7", spread="0.1")
BAD = Row("A-2", "another | ratio", "<= 2", "2.5", False)


def found(*made: Row) -> Reproduction:
    return Reproduction(
        "tiny",
        list(made),
        figures={"curves": b"png"},
        details=[Detail("by step", ("step", "loss"), [["1", "0.5"]])],
        extra={"curve": np.array([1.0, np.inf])},
    )


def shown(reproduction: Reproduction) -> str:
    text = io.StringIO()
    rows.show(reproduction, Console(file=text, width=200))
    return text.getvalue()


def test_a_row_that_fails_is_named_at_the_end() -> None:
    assert shown(found(GOOD)).strip().endswith("all rows pass (1)")
    last = shown(found(GOOD, BAD)).strip().splitlines()[-1]
    assert last == "1 of 2 rows fail: A-2 (another | ratio)"
    assert "FAIL" in shown(found(GOOD, BAD))


def test_no_rows_have_not_passed() -> None:
    assert not found().passed


def test_what_is_written(tmp_path) -> None:
    written = rows.write(found(GOOD, BAD), tmp_path, Settings(seed=3), 1.5)
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())
    assert set(written) == {"results.json", "tiny.md", "curves.png"}
    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["passed"]
    assert results["seed"] == 3
    assert results["curve"] == [1.0, None]
    assert results["rows"][0]["published"] == "1.7"
    assert "jax" in results["versions"]
    table = (tmp_path / "tiny.md").read_text()
    assert "another \\| ratio" in table
    assert "**FAIL**" in table
    assert "by step" in table


def test_a_seed_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--seed was given -1: a number from 0 to 2\\^32 - 1 is accepted"):
        Settings(seed=-1)


def test_the_command_fails_with_a_row(monkeypatch, tmp_path, capsys) -> None:
    from learned_opt.evaluate.reproduce import estimators

    for made, status in (((GOOD,), None), ((GOOD, BAD), 1)):
        monkeypatch.setattr(estimators, "run", lambda settings, console, made=made: found(*made))
        if status:
            with pytest.raises(SystemExit) as end:
                cli.main(["reproduce", "estimators", "--out", str(tmp_path)])
            assert end.value.code == status
        else:
            cli.main(["reproduce", "estimators", "--out", str(tmp_path)])
    assert "1 of 2 rows fail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "reproduce was given no result: accepted: estimators"),
        (["estimator"], "unknown result 'estimator': did you mean estimators or star?"),
    ],
)
def test_a_result_that_does_not_exist(args, message, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["reproduce", *args])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_result(capsys) -> None:
    cli.main(["reproduce", "--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in reproduce.RESULTS)
