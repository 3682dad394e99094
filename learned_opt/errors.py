"""The one exception for bad input, shown to a person as one line."""

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Iterable, Iterator
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


def check_seed(seed: int) -> None:
    """Refuses a `--seed` that no key is made from.

    Raises:
        UsageError: it is none.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed was given {seed}: a number from 0 to 2^32 - 1 is accepted")


def check_floats(owner: Any) -> None:
    """Refuses float fields of a dataclass that are no finite numbers from 0.

    Raises:
        UsageError: the first that is not.
    """
    for field in dataclasses.fields(owner):
        if field.type is float and not 0 <= getattr(owner, field.name) < math.inf:
            name, value = f"{type(owner).__name__}.{field.name}", getattr(owner, field.name)
            raise UsageError(f"{name} was given {value}: a number from 0 is accepted")


@contextlib.contextmanager
def of_system(what: str, accepted: str = "") -> Iterator[None]:
    """What the system refuses within, such as making a directory, as the one line `what: its words accepted`.

    Raises:
        UsageError: an `OSError` was raised.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"{what}: {error.strerror}{accepted}") from error
