"""Parts of error messages that several readers share."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_NAMES_CHARACTERS = 300
NO_QUOTES = ", or set quote: none for this source where no field is quoted"
UNCLOSED_QUOTE = (
    "{where}: a quote that opens in record {number} is not closed. Close it, or double it where it "
    f"belongs to the text{NO_QUOTES}."
)


def quoted(names: Iterable[str]) -> str:
    """Return quoted names, joined by commas and cut to 300 characters."""
    return ", ".join(map(repr, names))[:_MAX_NAMES_CHARACTERS]
