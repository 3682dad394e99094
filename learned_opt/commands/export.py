"""`learned-opt export`."""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from learned_opt import errors
from learned_opt.checkpoints import artifact
from learned_opt.checkpoints.load import of_card
from learned_opt.cli import parse
from learned_opt.commands import options
from learned_opt.errors import UsageError


@dataclass(frozen=True)
class ExportFlags:
    """Turn a finished run into pretrained weights, a directory that `learned_opt.load` reads."""

    run: tyro.conf.Positional[Path]
    """The run directory."""
    name: tyro.conf.Positional[str]
    """The name of the weights."""
    out: Path = Path("checkpoints/pretrained")
    """The folder that gets NAME/."""
    description: str = ""
    """What the weights are, and are not, good for: the first line of their card."""
    option: tuple[str, ...] = ()
    """Options that they are used with, where these are not those of meta-training, such as early_decay=0."""


def main(args: list[str]) -> None:
    """Copies theta and card of a finished run."""
    flags = parse("export", ExportFlags, args)
    if not flags.name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"NAME was given {flags.name!r}: letters, digits, '-' and '_' are accepted")
    target = flags.out / flags.name
    if target.exists():
        raise UsageError(f"{target} exists: a new NAME is accepted, or another --out")
    if not (flags.run / "card.json").is_file():
        raise UsageError(f"{flags.run} is no finished run: it holds no card.json")
    theta, card = artifact.read(flags.run)
    results = flags.run / "results.json"
    if results.is_file():
        card |= {"results": json.loads(results.read_text())["summary"]}
    if flags.option:
        card["optimizer_options"] |= options.read(flags.option)
        card.pop("results", None)  # they are of other options
    of_card(card, theta, flags.run)  # theta fits the architecture
    card |= {"name": flags.name, "description": flags.description or card.get("description", "")}
    with errors.of_system(f"--out was given {flags.out}", "; a directory is accepted"):
        artifact.write(target, theta, card)
    print(f"{target}: learned_opt.load({str(target)!r})")
