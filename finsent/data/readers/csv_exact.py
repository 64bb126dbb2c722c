"""CSV whose quotes, escapes or header are not RFC 4180's, read record by record."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from finsent.data.readers.columns import BLOCK_BYTES, MAX_CHARACTERS, Columns, assemble, with_cells
from finsent.data.readers.csv_dialect import Dialect, skip_sep_line
from finsent.data.readers.messages import UNCLOSED_QUOTE
from finsent.data.readers.stray_quotes import StrayQuoteDetector
from finsent.errors import InputError

MAX_MISFITS = 10_000  # malformed records before the first valid one, after which a reader gives up
_CHUNK_CHARACTERS = 1 << 20
_BLOCK_ROWS = 20_000
_LINE_END = re.compile(r"\r\n|\r|\n")

ODD_QUOTE = "malformed_row: text behind a closing quote; double the quotes that belong to the text"
ODD_ESCAPE = r'malformed_row: text behind a closing quote; set escape: "\\" for this source'


# Value, position behind the field, and whether text is behind a closing quote. A plain tuple costs
# less than a named one, and each field of a file is one.
_Field = tuple[str, int, bool]


class _Record(NamedTuple):
    fields: list[str]
    end: int  # position behind the record
    is_odd: bool  # text is behind a closing quote


class _Row(NamedTuple):
    number: int
    fields: list[str]
    written: str  # the record as the file has it
    is_odd: bool


class OpenQuoteError(Exception):
    """A quote is not closed before the end of the file."""


class Splitter:
    """Splits a text into records without losing a character."""

    def __init__(self, dialect: Dialect) -> None:
        delimiter, escape = re.escape(dialect.delimiter), re.escape(dialect.escape or "")
        self._delimiter, self._quote = dialect.delimiter, dialect.quote
        self._may_have_spaces = dialect.quote is not None and dialect.delimiter not in " \t"
        unquoted = rf"[^{delimiter}\r\n]*+"
        self._escapes_unquoted = bool(dialect.escape) and dialect.quote is None
        if self._escapes_unquoted:  # as Hive and MySQL write
            unquoted = rf"(?:[^{delimiter}{escape}\r\n]++|{escape}(?:\r\n|.|\Z))*+"
        self._unquoted = re.compile(unquoted, re.DOTALL)
        self._unescape = re.compile(rf"{escape}(\r\n|[{delimiter}{escape}\r\n])")
        if dialect.quote is not None:
            quote = re.escape(dialect.quote)
            inner = rf"[^{quote}{escape}]*+"
            pair = f"{quote}{quote}"
            if dialect.escape:
                pair += rf"|{escape}."
            body = rf"{inner}(?:(?:{pair}){inner})*+"
            end = rf"(?=[{delimiter}\r\n]|\Z)"
            line = body.replace("[^", r"[^\r\n")  # a blank before a quote may also be a text's
            self._spaced = re.compile(rf"[ \t]++{quote}({line}){quote}[ \t]*+{end}")
            self._quoted = re.compile(rf"{quote}({body}){quote}", re.DOTALL)
            escaped = rf"|{escape}([{quote}{escape}])" if dialect.escape else "|(?!)()"
            self._doubled = re.compile(rf"{quote}({quote}){escaped}")

    def next(self, text: str, start: int, is_final: bool) -> _Record | None:
        """Return the record at a position; None: the text ends within it, and more is needed.

        Raises:
            OpenQuoteError: the text is final, and a quote is not closed in it.
        """
        fields, is_odd, position = list[str](), False, start
        size = len(text)
        while True:
            field = self._next_field(text, position, is_final)
            if field is None:
                return None
            value, position, is_field_odd = field
            fields.append(value)
            is_odd = is_odd or is_field_odd
            if position == size:
                return _Record(fields, position, is_odd) if is_final else None
            if text[position] == self._delimiter:
                position += 1
                continue
            if text[position] == "\r" and position + 1 == size and not is_final:
                return None  # a line feed may follow
            end = position + (2 if text.startswith("\r\n", position) else 1)
            return _Record(fields, end, is_odd)

    def _next_field(self, text: str, start: int, is_final: bool) -> _Field | None:
        """Return the field at a position; None: the text ends within it, and more is needed."""
        quoted = None
        if self._quote is not None and text.startswith(self._quote, start):
            quoted = self._quoted.match(text, start)
            if quoted is None and is_final:
                raise OpenQuoteError
            if quoted is None or (quoted.end() == len(text) and not is_final):
                return None
        elif self._may_have_spaces:
            quoted = self._spaced.match(text, start)
        unquoted = self._unquoted.match(text, start if quoted is None else quoted.end())
        assert unquoted is not None  # it matches the empty text
        if quoted is None:
            value = unquoted[0]
            if self._escapes_unquoted:
                value = self._unescape.sub(r"\1", value)
            return value, unquoted.end(), False
        value = self._doubled.sub(lambda match: match[1] or match[2], quoted[1])
        is_odd = bool(unquoted[0].strip(" \t"))
        return value + unquoted[0] if is_odd else value, unquoted.end(), is_odd


def first_record(text: str, dialect: Dialect) -> list[str]:
    """Return the fields of the first record that is not a blank line; an empty list without one.

    Raises:
        OpenQuoteError: a quote is not closed in it.
    """
    splitter = Splitter(dialect)
    text = (skip_sep_line(text) if dialect.has_sep_line else text).lstrip("\r\n")
    record = splitter.next(text, 0, is_final=True) if text else None
    return record.fields if record else []


class ExactReader:
    """Reads any dialect; each unusable record comes with its number and its text."""

    def __init__(self, source: int, columns: Columns, dialect: Dialect, where: str) -> None:
        self._source, self._columns, self._dialect = source, columns, dialect
        self._where = where
        self._stray_quotes = StrayQuoteDetector(columns, dialect.delimiter)
        self._has_valid_record = False  # a record had as many fields as the header

    def read(self, stream: BinaryIO, encoding: str) -> Iterator[pa.Table]:
        """Yield all records in order, block by block.

        Raises:
            InputError: a quote is not closed, or no record fits the header.
        """
        records = self._records(stream, encoding)
        first_record = next(records, None)
        if first_record is None:
            return
        names = first_record.fields
        if not self._dialect.has_header:
            names = [str(position) for position in range(1, len(names) + 1)]
            records = chain([first_record], records)
        positions = {name: names.index(name) for name in self._read_names(names)}
        block: list[_Row] = []
        size = 0
        for record in records:
            block.append(record)
            size += len(record.written)
            if len(block) == _BLOCK_ROWS or size > BLOCK_BYTES // 2:
                yield self._table(block, positions, len(names))
                block, size = [], 0
        if block:
            yield self._table(block, positions, len(names))

    def _read_names(self, names: list[str]) -> list[str]:
        read = [*self._columns.all_stored, self._stray_quotes.witness]
        return [name for name in dict.fromkeys(read) if name is not None and name in names]

    def _records(self, stream: BinaryIO, encoding: str) -> Iterator[_Row]:
        """Yield the records; blank lines behind the first record only where they are records."""
        splitter, number = Splitter(self._dialect), 0
        with io.TextIOWrapper(stream, encoding=encoding, newline="") as lines:
            text, start, is_final = lines.read(_CHUNK_CHARACTERS).lstrip("\ufeff"), 0, False
            if self._dialect.has_sep_line:
                text = skip_sep_line(text)
            while True:
                try:
                    record = splitter.next(text, start, is_final) if start < len(text) else None
                except OpenQuoteError:
                    raise self._unclosed(number + 1) from None
                if record is None:
                    if is_final:
                        return
                    if len(text) - start > MAX_CHARACTERS:
                        raise self._unclosed(number + 1)
                    chunk = lines.read(max(_CHUNK_CHARACTERS, len(text) - start))
                    text, start, is_final = text[start:] + chunk, 0, not chunk
                    continue
                written = text[start : record.end].rstrip("\r\n")
                start = record.end
                # A quote out of place may have swallowed the lines behind it: each counts.
                written_lines = _LINE_END.split(written) if record.is_odd else [written]
                keeps_blank = self._columns.keeps_blank and number > 0
                for line in written_lines if keeps_blank else filter(None, written_lines):
                    number += 1
                    yield _Row(number, record.fields, line, record.is_odd)

    def _unclosed(self, number: int) -> InputError:
        return InputError(UNCLOSED_QUOTE.format(where=self._where, number=number))

    def _fault(self, row: _Row, width: int) -> str | None:
        if row.is_odd:
            has_escape = self._dialect.escape is None and '\\"' in row.written
            return ODD_ESCAPE if has_escape else ODD_QUOTE
        if row.written and len(row.fields) != width:  # a blank line has all columns, empty
            if not self._has_valid_record and row.number > MAX_MISFITS:
                raise InputError(f"{self._where}: {misfit(width, len(row.fields))}")
            return f"malformed_row: {len(row.fields)} fields, not {width}"
        self._has_valid_record = self._has_valid_record or row.written != ""
        return None

    def _table(self, block: list[_Row], positions: dict[str, int], width: int) -> pa.Table:
        """Return a block of records as a table.

        Args:
            positions: of the columns that are read, by name.
            width: number of the file's columns.
        """
        faults = [self._fault(row, width) for row in block]

        def cells(position: int) -> pa.Array:
            values = [
                None if fault else row.fields[position] if row.written else ""
                for row, fault in zip(block, faults, strict=True)
            ]
            return pa.array(values, pa.string())

        values = {name: cells(position) for name, position in positions.items()}
        carried = {name: values[name] for name in self._columns.carried_stored}
        texts = values[self._columns.text]
        witness = self._stray_quotes.witness
        stray = self._stray_quotes.faults(texts, None if witness is None else values.get(witness))
        texts_or_records = [
            row.written if fault else text
            for row, fault, text in zip(block, faults, texts.to_pylist(), strict=True)
        ]
        values[self._columns.text] = pa.array(texts_or_records, pa.string())
        all_faults = pa.array(faults, pa.string()).fill_null(stray)
        numbers = [row.number for row in block]
        rows = assemble(self._source, numbers, values, self._columns, all_faults, carried)
        return with_cells(rows, [*map(cells, range(width if self._columns.keeps_cells else 0))])


def misfit(expected: int, actual: int) -> str:
    """Return the problem of a file in which no record has as many fields as the header."""
    return (
        f"none of the first {MAX_MISFITS:,} records has the header's {expected} fields, the last "
        f"one has {actual}. Set the source's delimiter, or repair the file."
    )
