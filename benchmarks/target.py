"""What a measurement is held to."""

from typing import NamedTuple


class Target(NamedTuple):
    """A figure and its limit: the most it may be, or the least."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figure is within the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self) -> str:
        """For the screen."""
        word, bound = "pass" if self.passed else "FAIL", "at least" if self.at_least else "at most"
        detail = f"; {self.detail}" if self.detail else ""
        return f"{word}  {self.name}: {self.value:.3g} ({bound} {self.limit:g}){detail}"
