"""The one exception for bad input, shown to a person as one line."""

import difflib
import math
from collections.abc import Iterable
from typing import Any


class UsageError(ValueError):
    """Bad input from a person, in one line: what was given and what is accepted. The command line exits with 2."""


def unknown(what: str, given: str, accepted: Iterable[str], listed: str | None = None) -> UsageError:
    """The error for a name that is not one of `accepted`, with near misses suggested.

    `listed` says in words what is accepted, where the names are too many.
    """
    names = sorted(accepted)
    near = difflib.get_close_matches(given, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UsageError(f"unknown {what} {given!r}: {hint}accepted: {listed or ', '.join(names)}")


def check_from_zero(owner: Any, names: Iterable[str]) -> None:
    """Refuses attributes that are no finite numbers from 0.

    Raises:
        UsageError: the first that is not.
    """
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < math.inf:
            raise UsageError(f"{type(owner).__name__}.{name} was given {value}: a number from 0 is accepted")
