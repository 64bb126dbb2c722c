"""CSV by Arrow's parser, which is fast; unusable records keep their numbers and texts."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from finsent.data.readers.columns import BLOCK_BYTES, Columns, assemble, with_cells
from finsent.data.readers.csv_exact import MAX_MISFITS, ExactReader, misfit
from finsent.data.readers.layout import FileLayout
from finsent.data.readers.messages import UNCLOSED_QUOTE
from finsent.data.readers.stray_quotes import StrayQuoteDetector
from finsent.errors import InputError, one_line

_TAIL_BYTES = 64 << 10


def read_csv(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield the records of a CSV in order, by the fastest parser that reads its dialect.

    Where `columns.keeps_cells` is set, the tables also have the columns of `with_cells`.

    Raises:
        InputError: the file cannot be parsed.
    """
    dialect = layout.dialect
    if dialect is not None and not dialect.is_plain:
        return ExactReader(source, columns, dialect, layout.where).read(stream, layout.encoding)
    return _ArrowReader(source, columns, layout).read(stream)


class _InvalidRow(Protocol):
    """A row as Arrow hands it to `invalid_row_handler`."""

    number: int
    text: str
    expected_columns: int
    actual_columns: int


class _Malformed(NamedTuple):
    number: int
    text: str
    field_count: int


class _ArrowReader:
    """Arrow's parser, which skips malformed records, and the merge of these with the valid ones."""

    def __init__(self, source: int, columns: Columns, layout: FileLayout) -> None:
        self._source, self._columns, self._layout = source, columns, layout
        self._next = 2  # number of the next record; the header is 1
        self._malformed: list[_Malformed] = []  # reported by Arrow since the last batch
        self._ahead = np.zeros(0, np.int64)  # numbers of malformed records from `_next` on
        self._waiting = columns.schema.empty_table()  # malformed records that are not yielded yet
        self._last_malformed = (0, "")  # number and text
        self._last_value = ""  # of the last column, which shows a quote that is never closed
        self._field_count = 0  # of a valid record
        self._stray_quotes = StrayQuoteDetector(columns, layout.delimiter)
        self._misfit = ""

    def read(self, stream: BinaryIO) -> Iterator[pa.Table]:
        """Yield all records in order, block by block.

        Raises:
            InputError: the file cannot be parsed.
        """
        tail = _TailStream(stream, self._layout.encoding, skips_blank=self._columns.keeps_blank)
        try:
            # Arrow yields no batch before the first valid record.
            for batch in self._open(tail):
                self._take_malformed()
                valid = [self._valid(batch)] if len(batch) else []
                if len(table := self._merged(valid)):
                    yield table
        except pa.ArrowInvalid as error:
            where, problem = self._layout.where, one_line(error)
            if self._misfit:
                raise InputError(f"{where}: {self._misfit}") from None
            if "Empty CSV" in problem:  # a header and not even the end of its line
                return
            raise InputError(
                f"{where} is not valid {self._layout.format.upper()} near record {self._next} "
                f"({problem}). Repair the file, e.g. an unclosed quote."
            ) from None
        self._take_malformed()
        if len(self._waiting):
            yield self._waiting
        self._check_end(tail)

    def _open(self, stream: _TailStream) -> csv.CSVStreamingReader:
        columns = self._columns
        read = columns.all if columns.keeps_cells else columns.all_stored
        names = [*read, columns.last, self._stray_quotes.name]
        included = [name for name in dict.fromkeys(names) if name is not None]
        return csv.open_csv(
            stream,
            read_options=csv.ReadOptions(
                use_threads=False,  # Arrow numbers malformed rows only without threads
                block_size=BLOCK_BYTES,
            ),
            parse_options=csv.ParseOptions(
                delimiter=self._layout.delimiter,
                newlines_in_values=True,
                ignore_empty_lines=not columns.keeps_blank,
                invalid_row_handler=self._handle_invalid,
            ),
            convert_options=csv.ConvertOptions(
                # None: all columns, by position, as two may have one name.
                include_columns=None if columns.keeps_cells else included,
                column_types={name: pa.string() for name in included},
                strings_can_be_null=False,
            ),
        )

    def _handle_invalid(self, row: _InvalidRow) -> str:
        self._field_count = row.expected_columns
        self._malformed.append(_Malformed(row.number, row.text, row.actual_columns))
        is_each_malformed = row.number - 1 == len(self._malformed)
        if is_each_malformed and len(self._malformed) > MAX_MISFITS:
            self._misfit = misfit(row.expected_columns, row.actual_columns)
            return "error"
        return "skip"

    def _take_malformed(self) -> None:
        """Move the reported malformed records to those that wait for their turn."""
        malformed = self._malformed[:]
        del self._malformed[: len(malformed)]
        if not malformed:
            return
        numbers = [record.number for record in malformed]
        texts = [record.text for record in malformed]
        self._ahead = np.concatenate([self._ahead, np.array(numbers, np.int64)])
        self._last_malformed = (numbers[-1], texts[-1])
        faults = [
            f"malformed_row: {record.field_count} fields, not {self._field_count}"
            for record in malformed
        ]
        columns = self._columns
        empty = dict.fromkeys(columns.all_stored, pa.nulls(len(malformed), pa.string()))
        values = {**empty, columns.text: pa.array(texts, pa.string())}
        fault = pa.array(faults, pa.string())
        table = assemble(self._source, numbers, values, columns, fault, empty)
        self._waiting = pa.concat_tables([self._waiting, table])

    def _valid(self, batch: pa.RecordBatch) -> pa.Table:
        """Return a batch of valid records; their numbers leave out those of malformed ones."""
        candidates = np.arange(self._next, self._next + len(batch) + len(self._ahead))
        numbers = candidates[~np.isin(candidates, self._ahead)][: len(batch)]
        self._next = int(numbers[-1]) + 1
        self._ahead = self._ahead[self._ahead >= self._next]
        columns = self._columns
        last = columns.text if columns.last is None else columns.last
        self._last_value = batch.column(-1 if columns.keeps_cells else last)[-1].as_py()
        values = {name: batch[name] for name in columns.all_stored}
        name = self._stray_quotes.name
        witness = None if name is None else batch[name]
        faults = self._stray_quotes.faults(batch[columns.text], witness)
        rows = assemble(self._source, numbers, values, columns, faults)
        return with_cells(rows, batch.columns if columns.keeps_cells else [])

    def _merged(self, valid: list[pa.Table]) -> pa.Table:
        """Return valid records and the malformed ones before them, in order.

        A malformed record waits until all records before it are known.
        """
        follows = self._ahead == self._next + np.arange(len(self._ahead))
        self._next += int(np.cumprod(follows).sum())
        self._ahead = self._ahead[self._ahead >= self._next]
        is_due = pc.less(self._waiting["row"], self._next)
        due, self._waiting = self._waiting.filter(is_due), self._waiting.filter(pc.invert(is_due))
        # Malformed records have no cells: null, where `columns.keeps_cells` requests them.
        table = pa.concat_tables([due, *valid], promote_options="default")
        return table.sort_by("row") if len(due) else table

    def _check_end(self, tail: _TailStream) -> None:
        """Refuse a file with an unclosed quote, which makes one record of all that follows.

        Raises:
            InputError: a quote that opens in the last record is not closed.
        """
        number, text = self._last_malformed
        is_open = _has_open_quote(text, self._layout.delimiter)
        if number < self._next - 1:  # the last record is valid
            number, is_open = self._next - 1, tail.ends_within(self._last_value)
        if is_open:
            raise InputError(UNCLOSED_QUOTE.format(where=self._layout.where, number=number))


class _TailStream(io.RawIOBase):
    """A stream in UTF-8 that remembers its last bytes.

    Args:
        skips_blank: leave out blank lines before the first one that is not.
    """

    def __init__(self, stream: BinaryIO, encoding: str, skips_blank: bool) -> None:
        raw = pa.PythonFile(stream, "r")
        is_utf8 = encoding == "utf-8"
        self._stream = raw if is_utf8 else pa.transcoding_input_stream(raw, encoding, "utf-8")
        self._tail = b""
        self._skips_blank = skips_blank

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        chunk: bytes = self._stream.read(size)
        while self._skips_blank and chunk:
            if text := chunk.lstrip(b"\r\n"):
                chunk, self._skips_blank = text, False
            else:
                chunk = self._stream.read(size)
        self._tail = (self._tail[-_TAIL_BYTES:] + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return chunk

    def ends_within(self, value: str) -> bool:
        """Return whether the last field's value, which spans lines, continues to the very end.

        A field that is closed ends in at least its quote.
        """
        if not value.strip() or not re.search(r"[\r\n]", value):
            return False
        written = value.rstrip("\r\n").replace('"', '""').encode()
        return self._tail.rstrip(b"\r\n").endswith(written[-_TAIL_BYTES // 2 :])


def _has_open_quote(record: str, delimiter: str) -> bool:
    """Return whether a quote that opens a field of a malformed record is never closed."""
    field = rf'(?:"[^"]*+(?:""[^"]*+)*+"|(?!"))[^{re.escape(delimiter)}\r\n]*+'
    fields = rf"{field}(?:{re.escape(delimiter)}{field})*+"
    return re.fullmatch(fields, record.rstrip("\r\n")) is None
