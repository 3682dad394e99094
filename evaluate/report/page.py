"""The report as one page, which loads nothing, and as Markdown; `page.html` and `page.md` are their templates."""

import datetime
import functools
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from learned_opt.evaluate import curves, statistics
from learned_opt.evaluate.provenance import provenance
from learned_opt.evaluate.report import figures, tables, words
from learned_opt.evaluate.scores import TUNED_ADAM
from learned_opt.evaluate.summary import Summary


def html(summary: Summary) -> str:
    """A self-contained HTML document."""
    return _template("page.html").render(**_content(summary), **_figures(summary))


def markdown(summary: Summary) -> str:
    """The same without its pictures, of which `curves.png` has the learning curves."""
    text = _template("page.md").render(**_content(summary))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _content(summary: Summary) -> dict[str, Any]:
    results = summary.results
    return {
        "summary": summary,
        "results": results,
        "verdict": words.verdict(summary),
        "losses": words.losses(summary),
        "edges": words.edges(summary),
        "below_floor": words.below_floor(summary),
        "tuning": words.tuning(summary),
        "tables": tables,
        "statistics": statistics,
        "tuned": TUNED_ADAM,
        "date": datetime.datetime.now(datetime.UTC).strftime("%d %B %Y"),
        "hashes": {c.label: c.card["sha256"] for c in results.contenders if c.card.get("sha256")},
        "source": provenance(),
    }


def _figures(summary: Summary) -> dict[str, Any]:
    """SVG by what it shows; a function where there is one for each task."""
    drawn = {
        name: (lambda *args, draw=draw: Markup(draw(summary, *args)))
        for name, draw in (
            ("training_curves", figures.training_curves),
            ("validation_curves", figures.validation_curves),
            ("profile", figures.profile),
            ("dots", figures.dots),
            ("horizons", figures.horizons),
        )
    }
    return drawn | {"styles": curves.styles(summary.results)}
