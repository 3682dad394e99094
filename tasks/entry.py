"""What is known of a named task before its data is loaded."""

from collections.abc import Callable
from dataclasses import dataclass

from learned_opt.tasks.base import TaskFamily


@dataclass(frozen=True)
class Entry:
    """A named task family.

    Attributes:
        name: `DATA-NETWORK[-DETAIL]`.
        make: makes the family; data is loaded then.
        data: the name of its data set, or "none".
        initial_loss: between which values the training loss of fresh weights lies, averaged over tasks and batches.
        adam_lowers: the fraction of it by which 100 steps of Adam at 1e-3 lower it at least; 0 where they may not.
        floor: no weights have a smaller expected loss, on any split: what is known exactly of noise in the data; or 0.
    """

    name: str
    make: Callable[[], TaskFamily]
    data: str
    initial_loss: tuple[float, float]
    adam_lowers: float
    floor: float = 0.0

    @property
    def pair(self) -> tuple[str, str]:
        """Data set and architecture, by which a task counts as seen in meta-training or not."""
        data, architecture, *_ = self.name.split("-")
        return data, architecture
