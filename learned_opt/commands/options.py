"""`--option NAME=VALUE`: options of a learned optimizer on the command line."""

import json
from typing import Any

from learned_opt.errors import UsageError


def read(given: tuple[str, ...]) -> dict[str, Any]:
    """Options by name; a value that is not JSON is a string.

    Raises:
        UsageError: one has no `=`.
    """
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option was given {text!r}: NAME=VALUE is accepted")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
