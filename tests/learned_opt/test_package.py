"""The package as a user imports it."""

import subprocess
import sys

import pytest

import learned_opt


def test_importing_it_does_not_import_jax():
    """The command line answers before JAX has loaded."""
    code = "import sys, learned_opt; print(sorted({'jax', 'numpy', 'optax', 'flax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", learned_opt.__all__)
def test_every_public_name_resolves(name):
    assert getattr(learned_opt, name).__name__ == name


def test_public_names_are_sorted_and_complete():
    assert learned_opt.__all__ == sorted(learned_opt.__all__, key=lambda name: (name.islower(), name))
    assert set(learned_opt.__all__) == set(learned_opt._HOMES)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'learned_opt' has no attribute 'Sgd'"):
        _ = learned_opt.Sgd
    assert not hasattr(learned_opt, "also_not_there")


def test_usage_error_is_a_value_error():
    assert issubclass(learned_opt.UsageError, ValueError)
