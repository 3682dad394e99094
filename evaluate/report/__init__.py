"""A benchmark's results for a person: on a terminal, as a page, as Markdown, as pictures, and as data."""

from learned_opt.evaluate.report.files import prepare, write
from learned_opt.evaluate.report.terminal import show

__all__ = ["prepare", "show", "write"]
