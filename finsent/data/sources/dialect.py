"""How the fields of a CSV are written, and whether Arrow's parser reads them as they are meant."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

import numpy as np

from finsent.data.config import Format, SourceConfig

_QUOTE = 0x22
_SEP_LINE = re.compile(r'\ufeff?"?sep=([^"\r\n])"?[^\S\r\n]*(?:\r\n|\r|\n)', re.IGNORECASE)
_WIDE = ("utf-16", "utf-32")  # a quote is not one byte in them


@dataclass(frozen=True)
class Dialect:
    """The signs of a CSV."""

    delimiter: str = ","
    quote: str | None = '"'  # None: a quote is part of its field
    escape: str | None = None  # stands before a quote that belongs to the text; None: `""` does
    has_header: bool = True  # False: the columns are numbered from 1
    has_sep_line: bool = False  # Excel's `sep=;` stands above the header
    is_regular: bool = True  # every quote opens or closes a field, or is doubled

    @property
    def is_plain(self) -> bool:
        """Whether Arrow's parser reads such a file exactly."""
        return self == Dialect(self.delimiter)


def dialect_of(format: Format, source: SourceConfig, head: str, is_regular: bool) -> Dialect:
    """Return how a CSV is written, by its source's settings and its first line.

    Args:
        head: the decoded beginning of the file.
        is_regular: what `QuoteAudit` found.
    """
    sign = sep_sign(head)
    return Dialect(
        delimiter=source.delimiter or ("\t" if format == "tsv" else sign or ","),
        quote=None if source.quote == "none" else source.quote,
        escape=source.escape,
        has_header=source.header == "first",
        has_sep_line=sign is not None,
        is_regular=is_regular,
    )


def sep_sign(text: str) -> str | None:
    """Return the delimiter that Excel's first line `sep=;` names; None: there is no such line."""
    return sep[1] if (sep := _SEP_LINE.match(text)) else None


def skip_sep_line(text: str) -> str:
    """Return a text without Excel's first line `sep=;`."""
    return text[sep.end() :] if (sep := _SEP_LINE.match(text)) else text


class QuoteAudit:
    """Finds out by a CSV's bytes, in one pass, whether its quotes stand where RFC 4180 has them."""

    def __init__(self, delimiter: str) -> None:
        self._ends = np.zeros(256, bool)  # bytes that may stand before and behind a quoted field
        self._ends[[*b"\r\n", ord(delimiter)]] = True
        self._beside = self._ends.copy()  # ... or a quote
        self._beside[_QUOTE] = True
        self._last = b""  # of the chunk before; empty at the start of the file
        self._is_open = False
        self._is_regular = True

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the file, decompressed."""
        if not self._is_regular or not chunk:
            return
        start = not self._last
        if start and chunk.startswith(codecs.BOM_UTF8):
            chunk = chunk[len(codecs.BOM_UTF8) :]
        data = np.frombuffer((self._last or b"\n") + chunk, np.uint8)
        places = np.flatnonzero(data == _QUOTE)
        if len(places) and places[0] == 0:  # the last byte of the chunk before was a quote
            closed = not self._is_open
            if closed and len(data) > 1 and not self._beside[data[1]]:
                self._is_regular = False
                return
            places = places[1:]
        opens = places[int(self._is_open) :: 2]
        closes = places[1 - int(self._is_open) :: 2]
        before = data[opens - 1]
        behind = data[closes[closes + 1 < len(data)] + 1]
        self._is_regular = bool(self._beside[before].all() and self._beside[behind].all())
        self._is_open ^= len(places) % 2 == 1
        self._last = data[-1:].tobytes()

    def result(self, encoding: str) -> bool:
        """Return whether Arrow's parser reads the file as it is meant, once all bytes were fed."""
        return self._is_regular and not self._is_open and not encoding.startswith(_WIDE)
