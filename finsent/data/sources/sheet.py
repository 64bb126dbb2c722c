"""CSV and text files in memory, read as ingest reads them, with every cell and every blank row."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa

from finsent.data.sources import heads
from finsent.data.sources.csv_exact import NO_QUOTES, ODD_ESCAPE, ODD_QUOTE
from finsent.data.sources.dialect import Dialect, QuoteAudit, sep_sign, skip_sep_line
from finsent.data.sources.encodings import EncodingProbe
from finsent.data.sources.formats import Columns, read_names, read_rows
from finsent.errors import InputError

TEXT_COLUMNS = ("text", "sentence", "headline", "title")  # in any case; where none is named
SheetFormat = Literal["csv", "tsv", "text"]

_PIECE_BYTES = 1 << 20
_PIECE_ROWS = 256
_HEAD_BYTES = 1 << 20


class NotTextError(InputError):
    """The file is binary, or its bytes are in no known encoding or not in the given one."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a sheet."""

    number: int  # in the file; a CSV's header is 1
    cells: list[str]  # one per column; of a malformed row its text, in the text's column
    fault: str | None  # why the row cannot be used


@dataclass(frozen=True)
class Sheet:
    """A CSV or a text whose records can all be read."""

    format: SheetFormat
    header: tuple[str, ...]
    column: int  # of the text
    dialect: Dialect
    encoding: str  # of the file
    rows: int
    _utf8: pa.Buffer

    @property
    def delimiter(self) -> str:
        """Return the sign between the cells."""
        return self.dialect.delimiter

    def pieces(self) -> Iterator[list[Record]]:
        """Return the records in the order of the file, at most 256 at a time."""
        tables = _tables(self.format, self.header, self.column, self.dialect, self._utf8)
        if self.format == "text":
            return _batched(_lines(tables))
        return _batched(_cells(tables, len(self.header), self.column))


def read_sheet(
    body: bytes,
    format: SheetFormat = "csv",
    *,
    column: str | None = None,
    delimiter: str | None = None,
    encoding: str = "auto",
) -> Sheet:
    """Check a file from its first byte to its last.

    Args:
        body: the file.
        column: name of the text's column; None: one of `TEXT_COLUMNS`.
        delimiter: between the cells of a CSV; None: the one that gives the header such a column.
        encoding: a codec's name, or `auto`.

    Raises:
        NotTextError: the file is not text.
        InputError: the file cannot be parsed, or its text's column is not known.
    """
    utf8, encoding = _utf8(body, encoding)
    head = utf8[:_HEAD_BYTES].to_pybytes().decode(errors="ignore")
    if not head.strip():
        raise InputError("the file is empty; it needs rows")
    if heads.is_json(head):
        raise InputError("the file is JSON, not text; write its texts as CSV, and give that")
    dialect, place = Dialect(), 0
    header: tuple[str, ...] = ("text",)
    try:
        if format != "text":
            dialect = _dialect(format, head, column, delimiter, utf8)
            names = read_names(format, _stream(utf8), "utf-8", "the file", dialect) or []
            place, header = _text_column(names, column, dialect.delimiter), tuple(names)
        rows = sum(map(len, _tables(format, header, place, dialect, utf8)))
    except InputError as error:
        raise InputError(str(error).replace(NO_QUOTES, "")) from None  # an upload has no `quote`
    return Sheet(format, header, place, dialect, encoding, rows, utf8)


# --- bytes ----------------------------------------------------------------------------------------


def _utf8(body: bytes, encoding: str) -> tuple[pa.Buffer, str]:
    """A file's text in UTF-8 without blank lines around it, and its encoding."""
    kind = heads.binary_kind(body[:8])
    if kind:
        raise NotTextError(f"the file is {kind}, not text; save its table as CSV, and give that")
    pieces = [(start, start + _PIECE_BYTES) for start in range(0, len(body), _PIECE_BYTES)]
    if encoding == "auto":
        probe = EncodingProbe()
        for start, end in pieces:
            probe.feed(body[start:end])
        try:
            encoding = probe.result("the file")
        except InputError as error:
            raise NotTextError(str(error)) from None
    decoder, texts = codecs.getincrementaldecoder(encoding)(), []
    same = encoding in ("utf-8", "utf-8-sig")
    try:
        for start, end in pieces:
            text = decoder.decode(body[start:end], final=end >= len(body))
            texts.append("" if same else text)
        body = body if same else b"".join(text.encode() for text in texts)
    except UnicodeError as error:
        raise NotTextError(
            f"encoding={encoding!r}: the file is not in it ({error}); set encoding to the file's "
            "own, e.g. cp1252, or to auto"
        ) from None
    return _without_blank_ends(body), encoding


def _without_blank_ends(body: bytes) -> pa.Buffer:
    """The text without a byte order mark and blank lines around it, not copied."""
    start = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    start = len(body) - len(body[start:].lstrip(b"\r\n"))
    end = max(start, len(body.rstrip(b"\r\n")))
    # The end of the last line stays: by it an unclosed quote is found.
    end += 2 if body[end : end + 2] == b"\r\n" else len(body[end : end + 1])
    return pa.py_buffer(body).slice(start, end - start)


def _stream(utf8: pa.Buffer) -> BinaryIO:
    return cast(BinaryIO, pa.BufferReader(utf8))


# --- header ---------------------------------------------------------------------------------------


def _is_text(name: str, column: str | None) -> bool:
    return name == column if column is not None else name.strip().lower() in TEXT_COLUMNS


def _dialect(
    format: SheetFormat, head: str, column: str | None, delimiter: str | None, utf8: pa.Buffer
) -> Dialect:
    """The signs of a CSV, by its header, and whether its quotes stand where they should."""
    is_text: Callable[[str], bool] = lambda name: _is_text(name, column)  # noqa: E731
    named = sep_sign(head)
    sign = delimiter or ("\t" if format == "tsv" else named)
    sign = sign or heads.find_separator(skip_sep_line(head), is_text)
    audit = QuoteAudit(sign)
    for start in range(0, len(utf8), _PIECE_BYTES):
        audit.feed(utf8[start : start + _PIECE_BYTES].to_pybytes())
    is_regular = audit.result("utf-8")
    return Dialect(sign, has_sep_line=named is not None, is_regular=is_regular)


def _text_column(header: list[str], column: str | None, sign: str) -> int:
    """The place of the text's column.

    Raises:
        InputError: it cannot be told.
    """
    shown = ", ".join(map(repr, header))[:300]
    named = [place for place, name in enumerate(header) if _is_text(name, column)]
    if column is not None and len(named) != 1:
        count = "no" if not named else len(named)
        raise InputError(f"column={column!r}: {count} such columns; set column to one of {shown}")
    if named and header.count(header[named[0]]) > 1:
        raise InputError(
            f"the file has {header.count(header[named[0]])} columns {header[named[0]]!r}; rename "
            "all but one, or set column to another"
        )
    if len(named) > 1:
        names = ", ".join(repr(header[place]) for place in named)[:300]
        raise InputError(
            f"which column is the text? {names} are names of a text. Set column to one of them"
        )
    if named:
        return named[0]
    other = heads.likely_separator(header[0]) if len(header) == 1 else None
    if other is not None and other != sign:
        raise InputError(
            f"which column is the text? The header is {shown}: set delimiter to {other!r} and "
            "column to the text's, or name that column text"
        )
    lines = " or set format to text" if len(header) == 1 else ""
    raise InputError(
        f"which column is the text? Set column to its name, or name it text. There are {shown}. "
        f"Where the first line is no header, put one above it{lines}"
    )


# --- records --------------------------------------------------------------------------------------


def _tables(
    format: SheetFormat, header: tuple[str, ...], column: int, dialect: Dialect, utf8: pa.Buffer
) -> Iterator[pa.Table]:
    columns = Columns(
        header[column],
        None,
        None,
        last=header[-1],
        all=() if format == "text" else header,
        keeps_blank=True,
        keeps_cells=True,
    )
    return read_rows(format, _stream(utf8), 0, "utf-8", columns, "the file", dialect=dialect)


def _batched(records: Iterator[Record]) -> Iterator[list[Record]]:
    while piece := list(islice(records, _PIECE_ROWS)):
        yield piece


def _slices(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(table), _PIECE_ROWS):
        yield table.slice(start, _PIECE_ROWS).drop_columns(["source"]).to_pylist()


def _lines(tables: Iterator[pa.Table]) -> Iterator[Record]:
    for table in tables:
        for rows in _slices(table):
            for row in rows:
                text = row["raw_text"]
                yield Record(row["row"], [text if text.strip() else ""], None)


def _cells(tables: Iterator[pa.Table], width: int, column: int) -> Iterator[Record]:
    """Records of a CSV; one that could not be parsed has its text in the text's column."""
    names = [str(place) for place in range(width)]
    for table in tables:
        for rows in _slices(table):
            for row in rows:
                number, fault = row["row"], row["fault"]
                fault = ODD_QUOTE if fault == ODD_ESCAPE else fault  # an upload has no `escape`
                if row.get(names[0]) is None:
                    cells = [""] * width
                    cells[column] = row["raw_text"]
                    yield Record(number, cells, f"{fault} (record {number})")
                else:
                    yield Record(number, [row[name] for name in names], fault)
