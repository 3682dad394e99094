"""Artifacts: trained meta-parameters as data, a directory with `theta.npz` and `card.json`."""

import hashlib
import importlib.resources
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from learned_opt import errors
from learned_opt.base import Theta
from learned_opt.checkpoints import trees
from learned_opt.errors import UsageError

ARCHITECTURE = {"optimizer": str, "optimizer_options": dict}  # what a card or a config must say to rebuild an optimizer


def write(directory: Path, theta: Theta, card: dict[str, Any]) -> None:
    """Writes an artifact; its card gains the `sha256` of `theta.npz`, and equal thetas give equal files.

    The card goes last: whoever finds a card finds the weights it speaks of.

    Raises:
        ValueError: a leaf of theta is not a float array.
        UsageError: the card does not name the architecture.
    """
    _check_keys(directory / "card.json", card, ARCHITECTURE)
    weights = _to_npz(theta)
    card = card | {"sha256": hashlib.sha256(weights).hexdigest()}
    directory.mkdir(parents=True, exist_ok=True)
    replace(directory / "theta.npz", weights)
    replace(directory / "card.json", (json.dumps(card, indent=2) + "\n").encode())


def sha256(theta: Theta) -> str:
    """Of the `theta.npz` that this Python would make of it; versions write zip files in other bytes."""
    return hashlib.sha256(_to_npz(theta)).hexdigest()


def read(directory: Path) -> tuple[Theta, dict[str, Any]]:
    """Theta, as nested dicts of numpy arrays whatever tree it was, and the card of an artifact, verified.

    Raises:
        UsageError: a file is missing or damaged, or is not what the card says.
    """
    card = read_json(directory / "card.json", ARCHITECTURE | {"sha256": str})
    path = directory / "theta.npz"
    weights = _read_bytes(path)
    if hashlib.sha256(weights).hexdigest() != card["sha256"]:
        raise UsageError(f"{path}: damaged, or not the weights of its card: its sha256 differs from card.json")
    try:
        return _nest(dict(np.load(io.BytesIO(weights), allow_pickle=False))), card
    except Exception as error:  # the file may be anything at all, and numpy has many ways to say so
        raise UsageError(f"{path}: not an npz file of plain arrays") from error


def read_json(path: Path, keys: Mapping[str, type]) -> dict[str, Any]:
    """The JSON object in `path`, with `keys` known to be there and of their types.

    Raises:
        UsageError: there is no such file, it is not a JSON object, or a key is missing or of another type.
    """
    text = _read_bytes(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    _check_keys(path, content, keys)
    return content


def pretrained_names() -> list[str]:
    """The names of the pretrained weights that came with the package."""
    return sorted(card.parent.name for card in _pretrained().glob("*/card.json"))


def locate(name_or_directory: str | Path) -> Path:
    """Where pretrained weights of that name lie, or else the directory of that name, whatever it holds."""
    if name_or_directory in pretrained_names():  # a Path equals no name: Path("star") is the directory
        return _pretrained() / name_or_directory
    return Path(name_or_directory)


def resolve(name_or_directory: str | Path) -> Path:
    """The directory of an artifact: pretrained weights by name, or a directory such as that of a finished run.

    Raises:
        UsageError: it is neither.
    """
    directory = locate(name_or_directory)
    if (directory / "card.json").is_file():
        return directory
    if directory.is_dir():
        raise UsageError(f"{directory}: holds no card.json, so it is neither a finished run nor a pretrained optimizer")
    raise errors.unknown("optimizer", str(name_or_directory), [*pretrained_names(), "a run directory"])


def _pretrained() -> Path:
    return Path(str(importlib.resources.files("learned_opt.checkpoints") / "pretrained"))


def _to_npz(theta: Theta) -> bytes:
    arrays = trees.to_arrays(theta)
    for path, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"theta must hold numpy float arrays, given {array.dtype} at {path!r}")
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _nest(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Nested dicts from names with slashes."""
    nested: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, last = path.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return nested


def _read_bytes(path: Path) -> bytes:
    with errors.of_system(f"{path}: cannot be read"):
        return path.read_bytes()


def _check_keys(path: Path, content: Any, keys: Mapping[str, type]) -> None:
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds a {type(content).__name__}, a JSON object is expected")
    for key, kind in keys.items():
        if not isinstance(content.get(key), kind):
            given = repr(content[key]) if key in content else "missing"
            raise UsageError(f"{path}: key {key!r} is {given}, a {kind.__name__} is expected")


def replace(path: Path, content: bytes) -> None:
    """Writes `path` whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
