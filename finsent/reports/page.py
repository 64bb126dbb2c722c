"""Self-contained HTML pages: texts are escaped, pictures embedded, and nothing is fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader

from finsent.labels import LABELS
from finsent.reports.pictures import COLORS

_MAX_TEXT_CHARS = 300
_UNKNOWN = "\N{EN DASH}"


def render(template: str, pictures: Mapping[str, Path], **values: Any) -> str:
    """Render a template that extends `finsent.reports/base.html.j2`.

    Args:
        template: `PACKAGE/FILE` of package data.
        pictures: PNG files by their names in the template.
        values: variables of the template; texts are escaped.
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


@cache  # compiling a template takes longer than rendering it
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read_template), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": format_count,
        "share": format_share,
        "short": shorten,
        "figure": format_figure,
    }
    return environment


def _read_template(template: str) -> str:
    package, _, name = template.partition("/")
    return resources.files(package).joinpath(name).read_text("utf-8")


def format_count(count: int) -> str:
    """Write a count with thousands separators."""
    return f"{count:,}"


def format_share(count: int, total: int) -> str:
    """Write a part of a total as a percentage."""
    return f"{count / total:.1%}" if total else "0.0%"


def shorten(text: str | None) -> str:
    """Return the first 300 characters of a text."""
    text = text or ""
    return text if len(text) <= _MAX_TEXT_CHARS else f"{text[:_MAX_TEXT_CHARS]}…"


def format_figure(value: float | None, digits: int = 3) -> str:
    """Write a number with a fixed number of decimals, or a dash if it is unknown."""
    return _UNKNOWN if value is None else f"{value:.{digits}f}"
