import jax
import pytest

from learned_opt.errors import UsageError
from learned_opt.evaluate.suites import SUITES, suite
from learned_opt.tasks import registry


def sizes(family):
    """Numbers of weights, largest first."""
    task = family.task(family.sample(jax.random.key(0)))
    return sorted((leaf.size for leaf in jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0)))), reverse=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "digits",
            {
                f"mlp-32-{activation}{more}": [64 * 32, 320, 32, 10]
                for activation in ("relu", "tanh")
                for more in ("", "-reparametrised")
            },
        ),
        (
            "digits-ood",
            {
                "mlp-128-relu": [64 * 128, 1280, 128, 10],
                "mlp-16-16-16-tanh": [64 * 16, 256, 256, 160, 16, 16, 16, 10],
                "mlp-64-64-relu": [4096, 4096, 640, 64, 64, 10],
                "cnn-16-32-relu": [9 * 16 * 32, 320, 9 * 16, 32, 16, 10],
            },
        ),
    ],
)
def test_tasks(name, expected):
    assert {task: sizes(family) for task, family in suite(name).tasks.items()} == expected


def test_floors_are_those_of_the_named_tasks():
    assert suite("in-distribution").floor("quadratic-noisy") == registry.TASKS["quadratic-noisy"].floor > 0
    assert suite("digits").floor("mlp-32-relu") == 0


def test_data_is_loaded_when_asked_for(monkeypatch):
    monkeypatch.setattr("learned_opt.tasks.datasets.load", None)
    assert all(suite(name).description for name in SUITES)


def test_unknown():
    with pytest.raises(UsageError, match=r"^unknown suite 'digit': did you mean digits"):
        suite("digit")


def test_some_of_the_tasks():
    """In the order of the suite, the same families, under its name and horizons."""
    whole = suite("digits")
    some = whole.only(("mlp-32-tanh", "mlp-32-relu"))
    assert list(some.tasks) == ["mlp-32-relu", "mlp-32-tanh"]
    assert some.tasks["mlp-32-tanh"] is whole.tasks["mlp-32-tanh"]
    assert (some.name, some.horizons) == ("digits", whole.horizons)
    with pytest.raises(UsageError, match=r"^unknown task of the suite digits 'mlp-64': accepted: mlp-32-relu, "):
        whole.only(("mlp-32-relu", "mlp-64"))
