"""Self-contained HTML pages: escaped, with pictures inside, and nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finsent.labels import LABELS
from finsent.reports.pictures import COLORS

if TYPE_CHECKING:
    from jinja2 import Environment

_LONGEST = 300  # characters of a text that are shown
_NONE = "\N{EN DASH}"


def render(template: str, pictures: Mapping[str, Path], **values: Any) -> str:
    """A page from a template that extends `finsent.reports/base.html.j2`.

    Args:
        template: `PACKAGE/FILE`, of package data.
        pictures: PNG files by the name that the template has for them.
        values: what the template shows; texts are escaped.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            pictures={
                name: base64.b64encode(path.read_bytes()).decode("ascii")
                for name, path in pictures.items()
            },
            colors=COLORS,
            labels=LABELS,
            **values,
        )
    )


@cache  # compiling a template costs more than rendering it
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader

    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "share": share, "short": short, "figure": figure}
    return environment


def _source(template: str) -> str:
    package, _, name = template.partition("/")
    return resources.files(package).joinpath(name).read_text("utf-8")


def number(value: int) -> str:
    """A count with its thousands apart."""
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    """A part of a whole as a percentage."""
    return f"{part / whole:.1%}" if whole else "0.0%"


def short(text: str | None) -> str:
    """The first 300 characters."""
    text = text or ""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def figure(value: float | None, digits: int = 3) -> str:
    """A figure with so many digits; a dash where it is not known."""
    return _NONE if value is None else f"{value:.{digits}f}"
