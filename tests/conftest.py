"""What tests of every folder use."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import pytest


@pytest.fixture(scope="session")
def quick_jit() -> Callable[..., Any]:
    """`jax.jit` that compiles four times as fast, to slower code: for derivatives, whose programs are large."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    return functools.partial(jax.jit, compiler_options=options)


@pytest.fixture
def x64():
    """Double precision, for identities."""
    with jax.enable_x64(True):
        yield
