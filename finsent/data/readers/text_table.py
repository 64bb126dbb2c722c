"""CSV and text files in memory, read as ingest reads them, but with all cells and blank rows."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa

from finsent.data.config import Format
from finsent.data.readers.columns import Columns
from finsent.data.readers.csv_dialect import Dialect, QuoteAudit, skip_sep_line, stated_delimiter
from finsent.data.readers.csv_exact import ODD_ESCAPE, ODD_QUOTE
from finsent.data.readers.csv_header import find_delimiter, likely_delimiter
from finsent.data.readers.encoding_detection import EncodingDetector
from finsent.data.readers.formats import read_names, read_rows
from finsent.data.readers.json_header import is_json
from finsent.data.readers.layout import FileLayout
from finsent.data.readers.messages import NO_QUOTES, quoted
from finsent.data.readers.signatures import SIGNATURE_BYTES, binary_kind
from finsent.errors import InputError

TEXT_COLUMNS = (
    "text",
    "sentence",
    "headline",
    "title",
)  # in any case
TableFormat = Literal["csv", "tsv", "text"]

_CHUNK_BYTES = 1 << 20
_CHUNK_ROWS = 256
_HEAD_BYTES = 1 << 20
_WHERE = "the file"  # for messages


class NotTextError(InputError):
    """The file is binary, or its bytes are in no known encoding or not in the given one."""


class UnknownColumnError(InputError):
    """The column of the texts is not known: no column, or several, may be the one."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a text table."""

    number: int  # in the file; a CSV's header is 1
    cells: list[str]  # one per column; of a malformed row its text, in the text's column
    fault: str | None  # why the row is unusable


@dataclass(frozen=True)
class TextTable:
    """A CSV or text file whose records can all be read."""

    layout: FileLayout  # of the file in UTF-8
    header: tuple[str, ...]
    column: int  # of the text
    encoding: str  # of the file
    rows: int
    _utf8: pa.Buffer  # the file in UTF-8

    @property
    def delimiter(self) -> str:
        """Return the delimiter of the cells."""
        return self.layout.delimiter

    @property
    def format(self) -> Format:
        """Return the format of the file."""
        return self.layout.format

    def pieces(self) -> Iterator[list[TableRow]]:
        """Yield the rows in the order of the file, at most 256 at a time."""
        tables = _tables(self.layout, self.header, self.column, self._utf8)
        if self.format == "text":
            return _batched(_lines(tables))
        return _batched(_cells(tables, len(self.header), self.column))


def read_text_table(
    body: bytes,
    format: TableFormat = "csv",
    *,
    column: str | None = None,
    delimiter: str | None = None,
    encoding: str = "auto",
) -> TextTable:
    """Check a file from its first byte to its last.

    Args:
        body: the file.
        column: name of the text's column; None: one of `TEXT_COLUMNS`.
        delimiter: of a CSV; None: the delimiter that gives the header such a column.
        encoding: a codec's name, or `auto`.

    Raises:
        NotTextError: the file is not text.
        UnknownColumnError: the text's column is not known.
        InputError: the file cannot be parsed.
    """
    utf8, encoding = _utf8(body, encoding)
    head = utf8[:_HEAD_BYTES].to_pybytes().decode(errors="ignore")
    if not head.strip():
        raise InputError("the file is empty. It needs rows.")
    if is_json(head):
        raise InputError("the file is JSON, not text. Save its texts as CSV, and use that file.")
    layout, column_index = FileLayout(format, _WHERE, dialect=Dialect()), 0
    header: tuple[str, ...] = ("text",)
    try:
        if format != "text":
            layout = replace(layout, dialect=_dialect(format, head, column, delimiter, utf8))
            names = read_names(_stream(utf8), layout) or []
            column_index = _text_column(names, column, layout.delimiter)
            header = tuple(names)
        rows = sum(map(len, _tables(layout, header, column_index, utf8)))
    except UnknownColumnError:
        raise
    except InputError as error:
        # A text table has no setting `quote`.
        raise InputError(str(error).replace(NO_QUOTES, "")) from None
    return TextTable(layout, header, column_index, encoding, rows, utf8)


# --- bytes ----------------------------------------------------------------------------------------


def _utf8(body: bytes, encoding: str) -> tuple[pa.Buffer, str]:
    """Return a file's text in UTF-8, without blank lines around it, and the file's encoding."""
    kind = binary_kind(body[:SIGNATURE_BYTES])
    if kind:
        raise NotTextError(
            f"the file is {kind}, not text. Save its table as CSV, and use that file."
        )
    bounds = [(start, start + _CHUNK_BYTES) for start in range(0, len(body), _CHUNK_BYTES)]
    if encoding == "auto":
        detector = EncodingDetector()
        for start, end in bounds:
            detector.feed(body[start:end])
        try:
            encoding = detector.result(_WHERE)
        except InputError as error:
            raise NotTextError(str(error)) from None
    decoder, texts = codecs.getincrementaldecoder(encoding)(), []
    is_utf8 = encoding in ("utf-8", "utf-8-sig")
    try:
        for start, end in bounds:
            text = decoder.decode(body[start:end], final=end >= len(body))
            texts.append("" if is_utf8 else text)
        body = body if is_utf8 else b"".join(text.encode() for text in texts)
    except UnicodeError as error:
        raise NotTextError(
            f"encoding={encoding!r}: the file is in another encoding ({error}). Set encoding to "
            "the file's own, e.g. cp1252, or to auto."
        ) from None
    return _without_blank_ends(body), encoding


def _without_blank_ends(body: bytes) -> pa.Buffer:
    """Return the text without a byte order mark and blank lines around it, without a copy."""
    start = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    start = len(body) - len(body[start:].lstrip(b"\r\n"))
    end = max(start, len(body.rstrip(b"\r\n")))
    # The end of the last line stays: it shows an unclosed quote.
    end += 2 if body[end : end + 2] == b"\r\n" else len(body[end : end + 1])
    return pa.py_buffer(body).slice(start, end - start)


def _stream(utf8: pa.Buffer) -> BinaryIO:
    return cast(BinaryIO, pa.BufferReader(utf8))


# --- header ---------------------------------------------------------------------------------------


def _is_text(name: str, column: str | None) -> bool:
    return name == column if column is not None else name.strip().lower() in TEXT_COLUMNS


def _dialect(
    format: TableFormat, head: str, column: str | None, delimiter: str | None, utf8: pa.Buffer
) -> Dialect:
    """Return the dialect of a CSV by its header and its quotes."""
    stated = stated_delimiter(head)
    delimiter = delimiter or ("\t" if format == "tsv" else stated)
    delimiter = delimiter or find_delimiter(
        skip_sep_line(head), lambda name: _is_text(name, column)
    )
    audit = QuoteAudit(delimiter)
    for start in range(0, len(utf8), _CHUNK_BYTES):
        audit.feed(utf8[start : start + _CHUNK_BYTES].to_pybytes())
    is_regular = audit.result("utf-8")
    return Dialect(delimiter, has_sep_line=stated is not None, is_regular=is_regular)


def _text_column(header: list[str], column: str | None, delimiter: str) -> int:
    """Return the position of the text's column.

    Raises:
        UnknownColumnError: no column or several ones may be the text's.
    """
    columns = quoted(header)
    positions = [position for position, name in enumerate(header) if _is_text(name, column)]
    if column is not None and len(positions) != 1:
        count = "no" if not positions else len(positions)
        raise UnknownColumnError(
            f"column={column!r}: {count} such columns. Set column to one of {columns}."
        )
    names = [header[position] for position in positions]
    if names and header.count(names[0]) > 1:
        raise UnknownColumnError(
            f"the file has {header.count(names[0])} columns {names[0]!r}. Rename all but one, or "
            "set column to another."
        )
    if len(names) > 1:
        raise UnknownColumnError(
            f"which column is the text? {quoted(names)} are names of a text. Set column to one of "
            "them."
        )
    if positions:
        return positions[0]
    other = likely_delimiter(header[0]) if len(header) == 1 else None
    if other is not None and other != delimiter:
        raise UnknownColumnError(
            f"which column is the text? The header is {columns}. Set delimiter to {other!r} and "
            "column to the text's, or name that column text."
        )
    lines = " or set format to text" if len(header) == 1 else ""
    raise UnknownColumnError(
        f"which column is the text? Set column to its name, or name it text. The columns "
        f"are {columns}. If the first line is not a header, add one above it{lines}."
    )


# --- rows -----------------------------------------------------------------------------------------


def _tables(
    layout: FileLayout, header: tuple[str, ...], column: int, utf8: pa.Buffer
) -> Iterator[pa.Table]:
    columns = Columns(
        header[column],
        None,
        None,
        last=header[-1],
        all=() if layout.format == "text" else header,
        keeps_blank=True,
        keeps_cells=True,
    )
    return read_rows(_stream(utf8), layout, columns, source=0)


def _batched(rows: Iterator[TableRow]) -> Iterator[list[TableRow]]:
    while batch := list(islice(rows, _CHUNK_ROWS)):
        yield batch


def _slices(table: pa.Table) -> Iterator[list[Mapping[str, Any]]]:
    for start in range(0, len(table), _CHUNK_ROWS):
        yield table.slice(start, _CHUNK_ROWS).drop_columns(["source"]).to_pylist()


def _lines(tables: Iterator[pa.Table]) -> Iterator[TableRow]:
    for table in tables:
        for rows in _slices(table):
            for row in rows:
                text = row["raw_text"]
                yield TableRow(row["row"], [text if text.strip() else ""], None)


def _cells(tables: Iterator[pa.Table], width: int, column: int) -> Iterator[TableRow]:
    """Yield the rows of a CSV; one that could not be parsed has its text in the text's column."""
    names = [str(position) for position in range(width)]
    for table in tables:
        for rows in _slices(table):
            for row in rows:
                number, fault = row["row"], row["fault"]
                fault = (
                    ODD_QUOTE if fault == ODD_ESCAPE else fault
                )  # a text table has no setting `escape`
                if row.get(names[0]) is None:
                    cells = [""] * width
                    cells[column] = row["raw_text"]
                    yield TableRow(number, cells, f"{fault} (record {number})")
                else:
                    yield TableRow(number, [row[name] for name in names], fault)
