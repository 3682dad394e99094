"""Benchmarks of optimizers on tasks. `compare` scores optimizers on a loss of one's own."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learned_opt.evaluate.comparison import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    if name != "compare":
        raise AttributeError(f"module 'learned_opt.evaluate' has no attribute {name!r}")
    from learned_opt.evaluate.comparison import compare  # on first use: it imports a second of plotting

    return compare
