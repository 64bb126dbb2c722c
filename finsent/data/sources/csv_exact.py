"""CSV whose quotes, escapes or header are not RFC 4180's, read record by record."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from finsent.data.sources.columns import BLOCK_BYTES, MAX_CHARACTERS, Columns, assemble, with_cells
from finsent.data.sources.dialect import Dialect, skip_sep_line
from finsent.data.sources.swallowed import Witness
from finsent.errors import InputError

MISFITS = 10_000  # malformed records before the first good one that say enough
_CHUNK = 1 << 20  # characters
_BLOCK_ROWS = 20_000
_LINE_END = re.compile(r"\r\n|\r|\n")

NO_QUOTES = ", or set quote: none for this source where no field is quoted"
UNCLOSED = (
    "{where}: a quote that opens in record {number} is not closed; close it, or double it where it "
    f"belongs to the text{NO_QUOTES}"
)
ODD_QUOTE = "malformed_row: text behind a closing quote; double the quotes that belong to the text"
ODD_ESCAPE = r'malformed_row: text behind a closing quote; set escape: "\\" for this source'


class _Record(NamedTuple):
    fields: list[str]
    end: int  # position behind the record
    is_odd: bool  # text stands behind a closing quote


class _Row(NamedTuple):
    number: int
    fields: list[str]
    written: str  # the record as the file has it
    is_odd: bool


class OpenQuoteError(Exception):
    """A quote is not closed before the end of the file."""


class Splitter:
    """Splits a text into records, and nothing is lost."""

    def __init__(self, dialect: Dialect) -> None:
        delimiter, escape = re.escape(dialect.delimiter), re.escape(dialect.escape or "")
        self._delimiter, self._quote = dialect.delimiter, dialect.quote
        bare = rf"[^{delimiter}\r\n]*+"
        if dialect.escape and dialect.quote is None:  # as Hive and MySQL write
            bare = rf"(?:[^{delimiter}{escape}\r\n]++|{escape}(?:\r\n|.|\Z))*+"
        self._bare = re.compile(bare, re.DOTALL)
        self._unescape = re.compile(rf"{escape}(\r\n|[{delimiter}{escape}\r\n])")
        self._escapes_bare = bool(dialect.escape) and dialect.quote is None
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
            also = rf"|{escape}([{quote}{escape}])" if dialect.escape else "|(?!)()"
            self._doubled = re.compile(rf"{quote}({quote}){also}")

    def next(self, text: str, start: int, is_final: bool) -> _Record | None:
        """Return the record at a position; None: the text ends within it, so more is needed.

        Raises:
            OpenQuoteError: the text is final, and a quote is not closed in it.
        """
        fields, is_odd, place, size = [], False, start, len(text)
        while True:
            quoted = None
            if self._quote is not None and text.startswith(self._quote, place):
                quoted = self._quoted.match(text, place)
                if quoted is None and is_final:
                    raise OpenQuoteError
                if quoted is None or (quoted.end() == size and not is_final):
                    return None
            if self._quote is not None and quoted is None and self._delimiter not in " \t":
                quoted = self._spaced.match(text, place)
            value = ""
            if quoted is not None:
                value = self._doubled.sub(lambda m: m[1] or m[2], quoted[1])
                place = quoted.end()
            bare = self._bare.match(text, place)
            assert bare is not None  # it matches the empty text
            if quoted is None:
                value = self._unescape.sub(r"\1", bare[0]) if self._escapes_bare else bare[0]
            elif bare[0].strip(" \t"):
                value, is_odd = value + bare[0], True
            place = bare.end()
            fields.append(value)
            if place == size:
                return _Record(fields, place, is_odd) if is_final else None
            if text[place] == self._delimiter:
                place += 1
                continue
            if text[place] == "\r" and place + 1 == size and not is_final:
                return None  # a line feed may follow
            return _Record(fields, place + (2 if text.startswith("\r\n", place) else 1), is_odd)


def first_record(text: str, dialect: Dialect) -> list[str]:
    """Return the fields of the first record that is no blank line; none where there is none.

    Raises:
        OpenQuoteError: a quote is not closed in it.
    """
    splitter = Splitter(dialect)
    text = (skip_sep_line(text) if dialect.has_sep_line else text).lstrip("\r\n")
    record = splitter.next(text, 0, is_final=True) if text else None
    return record.fields if record else []


class ExactReader:
    """Any dialect, with the number and the text of every record that cannot be used."""

    def __init__(self, source: int, columns: Columns, dialect: Dialect, where: str) -> None:
        self._source, self._columns, self._dialect = source, columns, dialect
        self._where = where
        self._witness = Witness(columns, dialect.delimiter)
        self._good = False  # a record had the header's fields

    def read(self, stream: BinaryIO, encoding: str) -> Iterator[pa.Table]:
        """Return all records in order, block by block.

        Raises:
            InputError: a quote is not closed, or no record fits the header.
        """
        records = self._records(stream, encoding)
        first = next(records, None)
        if first is None:
            return
        names = first.fields
        if not self._dialect.has_header:
            names = [str(place) for place in range(1, len(names) + 1)]
            records = chain([first], records)
        places = {name: names.index(name) for name in self._read_names(names)}
        block: list[_Row] = []
        size = 0
        for record in records:
            block.append(record)
            size += len(record.written)
            if len(block) == _BLOCK_ROWS or size > BLOCK_BYTES // 2:
                yield self._table(block, places, len(names))
                block, size = [], 0
        if block:
            yield self._table(block, places, len(names))

    def _read_names(self, names: list[str]) -> list[str]:
        wanted = [*self._columns.all_stored, self._witness.name]
        return [name for name in dict.fromkeys(wanted) if name is not None and name in names]

    def _records(self, stream: BinaryIO, encoding: str) -> Iterator[_Row]:
        """The records; blank lines behind the first one only where they count."""
        splitter, number = Splitter(self._dialect), 0
        with io.TextIOWrapper(stream, encoding=encoding, newline="") as lines:
            text, start, is_final = lines.read(_CHUNK).lstrip("\ufeff"), 0, False
            if self._dialect.has_sep_line:
                text = skip_sep_line(text)
            while True:
                try:
                    record = splitter.next(text, start, is_final) if start < len(text) else None
                except OpenQuoteError:
                    raise InputError(
                        UNCLOSED.format(where=self._where, number=number + 1)
                    ) from None
                if record is None:
                    if is_final:
                        return
                    if len(text) - start > MAX_CHARACTERS:
                        raise InputError(UNCLOSED.format(where=self._where, number=number + 1))
                    more = lines.read(max(_CHUNK, len(text) - start))
                    text, start, is_final = text[start:] + more, 0, not more
                    continue
                written = text[start : record.end].rstrip("\r\n")
                start = record.end
                # A quote out of place may have swallowed the lines behind it: each counts.
                lost = _LINE_END.split(written) if record.is_odd else [written]
                keeps_blank = self._columns.keeps_blank and number > 0
                for line in lost if keeps_blank else filter(None, lost):
                    number += 1
                    yield _Row(number, record.fields, line, record.is_odd)

    def _table(self, block: list[_Row], places: dict[str, int], width: int) -> pa.Table:
        faults: list[str | None] = []
        for number, fields, written, is_odd in block:
            fault = None
            if is_odd:
                escaped = self._dialect.escape is None and '\\"' in written
                fault = ODD_ESCAPE if escaped else ODD_QUOTE
            elif written and len(fields) != width:  # a blank line has all columns, empty
                fault = f"malformed_row: {len(fields)} fields, not {width}"
                if not self._good and number > MISFITS:
                    raise InputError(f"{self._where}: {misfit(width, len(fields))}")
            self._good = self._good or (fault is None and written != "")
            faults.append(fault)
        bad = [fault is not None for fault in faults]

        def cells(place: int) -> pa.Array:
            return pa.array(
                [
                    None if odd else r.fields[place] if r.written else ""
                    for r, odd in zip(block, bad, strict=True)
                ],
                pa.string(),
            )

        values = {name: cells(place) for name, place in places.items()}
        carried = {name: values[name] for name in self._columns.carried_stored}
        texts = values[self._columns.text]
        witness = self._witness.name
        swallowed = self._witness.faults(texts, None if witness is None else values.get(witness))
        written = pa.array(
            [
                r.written if odd else t
                for r, odd, t in zip(block, bad, texts.to_pylist(), strict=True)
            ],
            pa.string(),
        )
        values[self._columns.text] = written
        broken = pa.array(faults, pa.string())
        numbers = [record.number for record in block]
        faults = broken.fill_null(swallowed)
        rows = assemble(self._source, numbers, values, self._columns, faults, carried)
        return with_cells(rows, [*map(cells, range(width if self._columns.keeps_cells else 0))])


def misfit(expected: int, actual: int) -> str:
    """Return why a file is given up in which no record fits the header."""
    return (
        f"none of the first {MISFITS:,} records has the header's {expected} fields, the last one "
        f"has {actual}; set the source's delimiter, or mend the file"
    )
