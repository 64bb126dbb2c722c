"""Readers of files of texts, in blocks: one function for all formats, CSV and lines themselves.

A reader never loses a record: one that cannot be used comes with the reason in `fault`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from finsent.data.config import Format
from finsent.data.sources import json_records, tables
from finsent.data.sources.columns import AS_JSON as AS_JSON
from finsent.data.sources.columns import BLOCK_BYTES as BLOCK_BYTES
from finsent.data.sources.columns import CARRIED as CARRIED
from finsent.data.sources.columns import ROWS as ROWS
from finsent.data.sources.columns import Columns as Columns
from finsent.data.sources.columns import assemble, with_cells
from finsent.data.sources.csv_exact import MISFITS, UNCLOSED, ExactReader, misfit
from finsent.data.sources.dialect import Dialect
from finsent.data.sources.heads import first_line, read_columns, separator
from finsent.data.sources.lines import read_lines
from finsent.data.sources.swallowed import Witness
from finsent.errors import InputError

_TAIL_BYTES = 64 << 10


def read_rows(
    format: Format,
    stream: BinaryIO,
    source: int,
    encoding: str,
    columns: Columns,
    where: str,
    dialect: Dialect | None = None,
    sheet: str | None = None,
) -> Iterator[pa.Table]:
    """Stream a file's records in their order as tables of `columns.schema`, block by block.

    Where `columns.keeps_cells` is set, the records of a CSV also have the columns of `with_cells`.

    Args:
        stream: decompressed bytes.
        source: what the column `source` says.
        where: the file, for messages.
        dialect: signs of a CSV; None: the format's usual ones. Its header also for a workbook.
        sheet: of a workbook; None: the only one that has rows.

    Raises:
        InputError: the file cannot be parsed.
    """
    if format == "parquet":
        return tables.read_parquet(stream, source, columns, where)
    if format == "arrow":
        return tables.read_arrow(stream, source, columns, where)
    if format == "excel":
        has_header = dialect is None or dialect.has_header
        return tables.read_excel(stream, source, columns, where, sheet, has_header)
    if format == "jsonl":
        return json_records.read_json_lines(stream, source, encoding, columns, where)
    if format == "json":
        return json_records.read_json(stream, source, encoding, columns, where)
    if format == "phrasebank":
        return _read_lines(stream, source, encoding, columns, where, _phrasebank_record)
    if format == "text":
        keeps_blank = columns.keeps_blank
        return _read_lines(
            stream, source, encoding, columns, where, lambda line: (line, None, None), keeps_blank
        )
    if dialect is not None and not dialect.is_plain:
        return ExactReader(source, columns, dialect, where).read(stream, encoding)
    sign = separator(format) if dialect is None else dialect.delimiter
    return _CsvReader(format, source, columns, sign, where).read(stream, encoding)


def read_names(
    format: Format,
    stream: BinaryIO,
    encoding: str,
    where: str,
    dialect: Dialect | None = None,
    sheet: str | None = None,
) -> list[str] | None:
    """Return the names of a file's columns; None where its format has none.

    Args:
        stream, encoding, where, dialect, sheet: as for `read_rows`.

    Raises:
        InputError: the head of the file is not what the format says.
    """
    if format == "arrow":
        return tables.arrow_columns(stream, where)
    if format == "excel":
        has_header = dialect is None or dialect.has_header
        return tables.excel_columns(stream, where, sheet, has_header)
    return read_columns(format, stream, encoding, where, dialect=dialect)


Record = tuple[str | None, str | None, str | None]  # text, label, fault


def _read_lines(
    stream: BinaryIO,
    source: int,
    encoding: str,
    columns: Columns,
    where: str,
    parse: Callable[[str], Record],
    keeps_blank: bool = False,
) -> Iterator[pa.Table]:
    number = 0
    for block in read_lines(stream, encoding, where):
        numbered = [
            (number + offset, line.lstrip("\ufeff").rstrip("\n"))
            for offset, line in enumerate(block, start=1)
        ]
        number += len(block)
        records = [(n, *parse(line)) for n, line in numbered if keeps_blank or line.strip()]
        if records:
            numbers, *parsed = zip(*records, strict=True)
            texts, labels, faults = (pa.array(column, pa.string()) for column in parsed)
            values = {columns.text: texts}
            if columns.label is not None:
                values[columns.label] = labels
            yield assemble(source, numbers, values, columns, faults)


def _phrasebank_record(line: str) -> Record:
    text, at, label = line.rpartition("@")
    if not at:
        return line, None, "malformed_row: no @ before the label"
    return text, label, None


class _CsvReader:
    """Arrow's parser, with the number and the text of every record that it cannot use."""

    def __init__(
        self, format: Format, source: int, columns: Columns, delimiter: str, where: str
    ) -> None:
        self._source, self._columns, self._where = source, columns, where
        self._name, self._delimiter = format.upper(), delimiter
        self._next = 2  # number of the next record; the header is 1
        self._broken: list[tuple[int, str, int]] = []  # number, text, fields; not yielded yet
        self._ahead = np.zeros(0, np.int64)  # numbers of broken records from `_next` on
        self._waiting = columns.schema.empty_table()  # broken records that are not yielded yet
        self._last_broken = (0, "")  # number and text
        self._last_value = ""  # of the last column, where an unclosed quote shows
        self._expected = 0  # fields of a record
        self._witness = Witness(columns, delimiter)
        self._misfit = ""

    def read(self, stream: BinaryIO, encoding: str) -> Iterator[pa.Table]:
        """All records in order, block by block.

        Raises:
            InputError: the file cannot be parsed.
        """
        tail = _Tail(stream, encoding, skips_blank=self._columns.keeps_blank)
        try:
            # Until the first good record Arrow goes on by itself.
            for batch in self._open(tail):
                self._take_broken()
                good = [self._good(batch)] if len(batch) else []
                if len(table := self._with_broken(good)):
                    yield table
        except pa.ArrowInvalid as error:
            problem = first_line(error)
            if self._misfit:
                raise InputError(f"{self._where}: {self._misfit}") from None
            if "Empty CSV" in problem:  # a header and not even the end of its line
                return
            raise InputError(
                f"{self._where} is not valid {self._name} near record {self._next} ({problem}); "
                "mend the file, e.g. an unclosed quote"
            ) from None
        self._take_broken()
        if len(self._waiting):
            yield self._waiting
        self._check_end(tail)

    def _open(self, stream: _Tail) -> csv.CSVStreamingReader:
        columns = self._columns
        read = columns.all if columns.keeps_cells else columns.all_stored
        names = [*read, columns.last, self._witness.name]
        wanted = [name for name in dict.fromkeys(names) if name is not None]
        return csv.open_csv(
            stream,
            read_options=csv.ReadOptions(
                use_threads=False,  # only then do broken rows carry their numbers
                block_size=BLOCK_BYTES,
            ),
            parse_options=csv.ParseOptions(
                delimiter=self._delimiter,
                newlines_in_values=True,
                ignore_empty_lines=not columns.keeps_blank,
                invalid_row_handler=self._keep_broken,
            ),
            convert_options=csv.ConvertOptions(
                # None: all of them, by position, as two may have one name.
                include_columns=None if columns.keeps_cells else wanted,
                column_types={name: pa.string() for name in wanted},
                strings_can_be_null=False,
            ),
        )

    def _keep_broken(self, row: Any) -> str:
        self._expected = row.expected_columns
        self._broken.append((row.number, row.text, row.actual_columns))
        if row.number - 1 == len(self._broken) > MISFITS:  # all of them, from the first on
            self._misfit = misfit(row.expected_columns, row.actual_columns)
            return "error"
        return "skip"

    def _take_broken(self) -> None:
        taken = self._broken[:]
        del self._broken[: len(taken)]
        if not taken:
            return
        numbers, texts, fields = zip(*taken, strict=True)
        self._ahead = np.concatenate([self._ahead, np.array(numbers, np.int64)])
        self._last_broken = (numbers[-1], texts[-1])
        faults = [f"malformed_row: {count} fields, not {self._expected}" for count in fields]
        columns = self._columns
        empty = dict.fromkeys(columns.all_stored, pa.nulls(len(taken), pa.string()))
        values = {**empty, columns.text: pa.array(texts, pa.string())}
        fault = pa.array(faults, pa.string())
        table = assemble(self._source, numbers, values, columns, fault, empty)
        self._waiting = pa.concat_tables([self._waiting, table])

    def _good(self, batch: pa.RecordBatch) -> pa.Table:
        free = np.arange(self._next, self._next + len(batch) + len(self._ahead))
        numbers = free[~np.isin(free, self._ahead)][: len(batch)]
        self._next = int(numbers[-1]) + 1
        self._ahead = self._ahead[self._ahead >= self._next]
        columns = self._columns
        last = columns.text if columns.last is None else columns.last
        self._last_value = batch.column(-1 if columns.keeps_cells else last)[-1].as_py()
        values = {name: batch[name] for name in columns.all_stored}
        name = self._witness.name
        witness = None if name is None else batch[name]
        swallowed = self._witness.faults(batch[columns.text], witness)
        rows = assemble(self._source, numbers, values, columns, swallowed)
        return with_cells(rows, batch.columns if columns.keeps_cells else [])

    def _with_broken(self, good: list[pa.Table]) -> pa.Table:
        """Put broken records in their places among good ones; they wait for those before them."""
        follow = self._ahead == self._next + np.arange(len(self._ahead))
        self._next += int(np.cumprod(follow).sum())
        self._ahead = self._ahead[self._ahead >= self._next]
        is_due = pc.less(self._waiting["row"], self._next)
        due, self._waiting = self._waiting.filter(is_due), self._waiting.filter(pc.invert(is_due))
        # Broken records have no cells: null, where `columns.keeps_cells` asks for them.
        table = pa.concat_tables([due, *good], promote_options="default")
        return table.sort_by("row") if len(due) else table

    def _check_end(self, tail: _Tail) -> None:
        """An unclosed quote makes one record of the rest: never let that pass as one.

        Raises:
            InputError: a quote that opens in the last record is not closed.
        """
        number, text = self._last_broken
        opened = _stays_open(text, self._delimiter)
        if number < self._next - 1:  # the last record is a good one
            number, opened = self._next - 1, tail.ends_within(self._last_value)
        if opened:
            raise InputError(UNCLOSED.format(where=self._where, number=number))


class _Tail(io.RawIOBase):
    """A stream in UTF-8 that remembers its end.

    Args:
        skips_blank: leave out blank lines before the first one that is not.
    """

    def __init__(self, stream: BinaryIO, encoding: str, skips_blank: bool) -> None:
        raw = pa.PythonFile(stream, "r")
        utf8 = encoding == "utf-8"
        self._stream = raw if utf8 else pa.transcoding_input_stream(raw, encoding, "utf-8")
        self._tail = b""
        self._skips_blank = skips_blank

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        chunk: bytes = self._stream.read(size)
        while self._skips_blank and chunk:
            if kept := chunk.lstrip(b"\r\n"):
                chunk, self._skips_blank = kept, False
            else:
                chunk = self._stream.read(size)
        self._tail = (self._tail[-_TAIL_BYTES:] + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return chunk

    def ends_within(self, value: str) -> bool:
        """Whether the last field's value, which spans lines, goes on to the very end.

        Behind a closed one stands at least its quote.
        """
        if not value.strip() or not re.search(r"[\r\n]", value):
            return False
        written = value.rstrip("\r\n").replace('"', '""').encode()
        return self._tail.rstrip(b"\r\n").endswith(written[-_TAIL_BYTES // 2 :])


def _stays_open(record: str, delimiter: str) -> bool:
    """Whether a quote that opens a field of a malformed record is never closed."""
    field = rf'(?:"[^"]*+(?:""[^"]*+)*+"|(?!"))[^{re.escape(delimiter)}\r\n]*+'
    fields = rf"{field}(?:{re.escape(delimiter)}{field})*+"
    return re.fullmatch(fields, record.rstrip("\r\n")) is None
