"""What `learned-opt benchmark` makes of its flags; the runs themselves are tested in `tests/evaluate`."""

import numpy as np
import pytest

from learned_opt.adam import LearnableAdam
from learned_opt.commands.benchmark import BenchmarkFlags, cells_line, chosen_horizons
from learned_opt.errors import UsageError
from learned_opt.evaluate import contenders


def learned(label, horizon):
    theta = {"learning_rate": np.zeros(())}
    return contenders.learned(label, LearnableAdam(), theta, {"config": {"max_horizon": horizon}} if horizon else {})


COMPARED = [learned("short", 100), contenders.parse("adam"), learned("long", 300), learned("unknown", None)]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ()),
        ({"horizons": ("200", "1000")}, (200, 1000)),
        ({"horizons": ("1x", "10x", "25x")}, (300, 3000, 7500)),
        ({"horizons": ("50", "1x")}, (50, 300)),
        ({"steps": 70}, (70,)),
    ],
)
def test_horizons(flags, expected):
    assert chosen_horizons(BenchmarkFlags(("short",), **flags), COMPARED) == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        *(({"horizons": (bad,)}, f"horizon '{bad}': inner steps such as 1000, or a multiple such as 10x, are accepted")
          for bad in ("0", "-5", "x", "0x", "1.5x", "1e3", "10X", "")),
        ({"steps": 0}, "horizon '0': "),
        ({"steps": -1}, "horizon '-1': "),
        ({"steps": 5, "horizons": ("5",)}, "--steps and --horizons were given: one of them is accepted"),
    ],
)  # fmt: skip
def test_bad_horizons(flags, message):
    with pytest.raises(UsageError, match=rf"^{message}[^\n]*$"):
        chosen_horizons(BenchmarkFlags(("short",), **flags), COMPARED)


def test_multiples_of_nothing():
    with pytest.raises(UsageError, match=r"^horizon '10x': no optimizer given says how long it was meta-trained"):
        chosen_horizons(BenchmarkFlags(("adam",), horizons=("10x",)), COMPARED[1:2])


def test_what_was_run_is_said():
    assert cells_line({"ran": 3, "cached": 4, "damaged": 0}) == (
        "3 cells (one task, one theta, all seeds) were run, 4 were cached"
    )
    assert "were run (1 of them because their files were damaged)" in cells_line({"ran": 3, "cached": 4, "damaged": 1})
