"""Learned optimizers by name."""

import pytest

from learned_opt import LearnableAdam, Star, UsageError, black_box_mlp, registry


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("star", {}, Star()),
        (
            "star",
            {"hidden": [8], "nominal": "adam", "average_magnitude": True},
            Star(hidden=(8,), nominal="adam", average_magnitude=True),
        ),
        ("star", {"hidden": []}, Star(hidden=())),
        ("star", {"hidden": (3, 5)}, Star(hidden=(3, 5))),
        ("star", {"momentum_decays": [0.6, 0.95, 0.994]}, Star(momentum_decays=(0.6, 0.95, 0.994))),
        ("star", {"momentum_decays": [0, 0.9, 0.99]}, Star(momentum_decays=(0.0, 0.9, 0.99))),
        ("black-box-mlp", {"step_scale": 1}, black_box_mlp(step_scale=1.0)),
        ("black-box-mlp", {"nominal": "sgd"}, black_box_mlp(nominal="sgd")),
        ("learnable-adam", {"b2": 0.95}, LearnableAdam(b2=0.95)),
    ],
)
def test_makes_what_was_described(name, options, expected):
    made = registry.make(name, options)
    assert made == expected
    assert hash(made) == hash(expected)
    for option, value in vars(made).items():
        assert type(value) is type(vars(expected)[option]), option


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "stra",
            {},
            "unknown learned optimizer 'stra': did you mean star? accepted: black-box-mlp, learnable-adam, schedule",
        ),
        ("star", {"step_scal": 1.0}, "unknown option of star 'step_scal': did you mean step_scale"),
        ("learnable-adam", {"nominal": "adam"}, "unknown option of learnable-adam 'nominal': accepted: b1, b2, eps"),
        ("star", {"nominal": "adm"}, "unknown value of Star.nominal 'adm': did you mean adam"),
        ("star", {"preconditioner": "RMS"}, "unknown value of Star.preconditioner 'RMS'"),
        ("star", {"step_scale": "0.1"}, "star.step_scale was given '0.1': a value like 0.001"),
        ("star", {"step_scale": True}, "star.step_scale was given True"),
        ("star", {"learned_magnitude": 1}, "star.learned_magnitude was given 1: a value like True"),
        ("star", {"nominal": None}, "star.nominal was given None"),
        ("star", {"hidden": 4}, r"star.hidden was given 4: a value like (4, 4)"),
        ("star", {"hidden": [4, 4.0]}, "star.hidden was given [4, 4.0]"),
        ("star", {"hidden": [True]}, "star.hidden was given [True]"),
        ("star", {"momentum_decays": [0.9, 1.0, 0.5]}, "Star.momentum_decays was given (0.9, 1.0, 0.5): three numbers"),
        ("star", {"momentum_decays": [0.9, 0.5]}, "Star.momentum_decays was given (0.9, 0.5): three numbers"),
    ],
)
def test_bad_descriptions_are_one_clear_line(name, options, message):
    with pytest.raises(UsageError) as caught:
        registry.make(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("star", {"hidden": (-1,)}, r"Star.hidden was given \(-1,\): widths from 1"),
        ("star", {"clipping_threshold": -1.0}, r"Star.clipping_threshold was given -1.0: a number from 0"),
        ("star", {"feature_eps": float("nan")}, r"Star.feature_eps was given nan: a number from 0"),
        ("learnable-adam", {"learning_rate": -1.0}, r"LearnableAdam.learning_rate was given -1.0"),
        ("learnable-adam", {"b1": 2.0}, r"LearnableAdam.b1 was given 2.0: below 1"),
        ("step-size", {"start": float("inf")}, r"StepSize.start was given inf"),
    ],
)
def test_numbers_that_no_step_could_have(name, options, message):
    with pytest.raises(UsageError, match=message):
        registry.make(name, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"nominal": "adam-agmo"}, "did you mean adam-aggmo"), ({"preconditioner": "second"}, "second-moment")],
)
def test_star_refuses_switches_that_do_not_exist(options, message):
    with pytest.raises(UsageError, match=message):
        Star(**options)
