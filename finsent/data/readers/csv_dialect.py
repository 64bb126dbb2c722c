"""The dialect of a CSV, and an audit of its quotes that decides which parser reads it."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

import numpy as np

from finsent.data.config import Format, SourceConfig

_QUOTE = 0x22
_DELIMITER_LINE = re.compile(r'\ufeff?"?sep=([^"\r\n])"?[^\S\r\n]*(?:\r\n|\r|\n)', re.IGNORECASE)
_WIDE_ENCODINGS = ("utf-16", "utf-32")  # a quote takes more than one byte in them


@dataclass(frozen=True)
class Dialect:
    """Delimiter and quotes of a CSV, and whether a header names its fields."""

    delimiter: str = ","
    quote: str | None = '"'  # None: a quote is part of its field
    escape: str | None = None  # before a quote that belongs to the text; None: a quote is doubled
    has_header: bool = True  # False: the columns are numbered from 1
    has_sep_line: bool = False  # Excel's line `sep=;` is above the header
    is_regular: bool = True  # every quote opens or closes a field, or is doubled

    @property
    def is_plain(self) -> bool:
        """Return whether Arrow's parser reads such a file exactly."""
        return self == Dialect(self.delimiter)


def dialect_of(format: Format, source: SourceConfig, head: str, is_regular: bool) -> Dialect:
    """Return the dialect of a CSV by its source's settings and its first line.

    Args:
        head: the decoded beginning of the file.
        is_regular: result of `QuoteAudit`.
    """
    stated = stated_delimiter(head)
    return Dialect(
        delimiter=source.delimiter or ("\t" if format == "tsv" else stated or ","),
        quote=None if source.quote == "none" else source.quote,
        escape=source.escape,
        has_header=source.header == "first",
        has_sep_line=stated is not None,
        is_regular=is_regular,
    )


def stated_delimiter(text: str) -> str | None:
    """Return the delimiter that Excel's first line `sep=;` states; None without such a line."""
    return line[1] if (line := _DELIMITER_LINE.match(text)) else None


def skip_sep_line(text: str) -> str:
    """Return a text without Excel's first line `sep=;`."""
    return text[line.end() :] if (line := _DELIMITER_LINE.match(text)) else text


class QuoteAudit:
    """Checks in one pass over a CSV's bytes that its quotes are where RFC 4180 allows them."""

    def __init__(self, delimiter: str) -> None:
        self._may_touch = np.zeros(256, bool)  # bytes that may be next to a quote, outside a field
        self._may_touch[[*b"\r\n", ord(delimiter), _QUOTE]] = True
        self._last_byte = b""  # of the previous chunk; empty at the start of the file
        self._is_open = False
        self._is_regular = True

    def feed(self, chunk: bytes) -> None:
        """Check the next bytes of the file, decompressed."""
        if not self._is_regular or not chunk:
            return
        if not self._last_byte and chunk.startswith(codecs.BOM_UTF8):
            chunk = chunk[len(codecs.BOM_UTF8) :]
        data = np.frombuffer((self._last_byte or b"\n") + chunk, np.uint8)
        quotes = np.flatnonzero(data == _QUOTE)  # positions
        if len(quotes) and quotes[0] == 0:  # the last byte of the previous chunk was a quote
            if not self._is_open and len(data) > 1 and not self._may_touch[data[1]]:
                self._is_regular = False
                return
            quotes = quotes[1:]
        opening = quotes[int(self._is_open) :: 2]
        closing = quotes[1 - int(self._is_open) :: 2]
        before = data[opening - 1]
        after = data[closing[closing + 1 < len(data)] + 1]
        self._is_regular = bool(self._may_touch[before].all() and self._may_touch[after].all())
        self._is_open ^= len(quotes) % 2 == 1
        self._last_byte = data[-1:].tobytes()

    def result(self, encoding: str) -> bool:
        """Return whether Arrow's parser reads the file correctly, once all bytes were fed."""
        return self._is_regular and not self._is_open and not encoding.startswith(_WIDE_ENCODINGS)
