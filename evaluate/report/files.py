"""The files of a report, each whole or not there."""

import json
import os
from pathlib import Path

from learned_opt import errors
from learned_opt.checkpoints import artifact
from learned_opt.errors import UsageError
from learned_opt.evaluate import curves
from learned_opt.evaluate.provenance import plain
from learned_opt.evaluate.report import data, page
from learned_opt.evaluate.scores import Results
from learned_opt.evaluate.summary import Summary


def prepare(directory: Path) -> None:
    """Makes `directory`; called before the work, so that hours of it do not end in a wrong path.

    Raises:
        UsageError: it cannot be made or written to.
    """
    with errors.of_system(f"{directory}: cannot be made a directory for results"):
        directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK):
        raise UsageError(f"{directory}: cannot be written to")


def write(results: Results, directory: Path) -> list[str]:
    """Writes the report and returns its files' names; those already there are replaced once all new ones are whole.

    Raises:
        UsageError: the directory cannot be made or written to.
    """
    prepare(directory)
    summary = Summary(results)
    text = json.dumps(plain(data.as_dict(summary)), indent=1, allow_nan=False) + "\n"
    contents = {
        "results.json": text.encode(),
        "report.html": page.html(summary).encode(),
        "report.md": page.markdown(summary).encode(),
        "curves.png": curves.png(results),
    }
    for name, content in contents.items():
        artifact.replace(directory / name, content)
    return list(contents)
