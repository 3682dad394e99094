"""What tests of every folder use."""

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest

# A program is compiled once for each worker of pytest and the processes that it starts. Workers do not share: JAX's
# cache has no locks.
COMPILED = tempfile.TemporaryDirectory()
SETTINGS = {"jax_compilation_cache_dir": COMPILED.name, "jax_persistent_cache_min_compile_time_secs": 0.1}
for name, value in SETTINGS.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


@pytest.fixture(scope="session")
def quick_jit() -> Callable[..., Any]:
    """`jax.jit` that compiles four times as fast, to slower code: for derivatives, whose programs are large."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    return functools.partial(jax.jit, compiler_options=options)


@pytest.fixture(scope="module")
def quick_programs() -> Iterator[None]:
    """Compiles quickly, to slower code, here and in started processes: where what surrounds a program is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        before = jax.config.read("jax_disable_most_optimizations")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def x64():
    """Double precision, for identities."""
    with jax.enable_x64(True):
        yield
