"""What to do about outer steps without a finite particle."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

PATIENCE = 10  # outer steps in a row that a family may spend without a finite particle


class Health:
    """Counts, for every task family, the outer steps in a row without a finite particle."""

    def __init__(self, families: Sequence[str], particles: Sequence[int]) -> None:
        """All families are well."""
        self.families, self.particles = families, np.asarray(particles)
        self.streaks = np.zeros(len(families), np.int32)

    @property
    def well(self) -> bool:
        """Whether every family had a finite particle in the last outer step."""
        return not self.streaks.any()

    def update(self, dropped: np.ndarray) -> bool:
        """Takes note of how many particles of each family were dropped; returns whether that was all of them."""
        dead = dropped >= self.particles
        self.streaks = np.where(dead, self.streaks + 1, 0).astype(np.int32)
        return bool(dead.all())

    def raise_if_hopeless(self, step: int, checkpoint: Path | None) -> None:
        """Ends a run that cannot recover by itself.

        Raises:
            FloatingPointError: a family had no finite particle for `PATIENCE` outer steps, the last of them `step`.
        """
        for family, streak in zip(self.families, self.streaks, strict=True):
            if streak >= PATIENCE:
                where = "there is no checkpoint before that" if checkpoint is None else f"restart from {checkpoint}"
                raise FloatingPointError(
                    f"outer step {step}: no particle of {family} has been finite for {streak} outer steps; {where}"
                )
