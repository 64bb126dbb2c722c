"""Readers of files of texts: CSV, TSV, JSON Lines, Parquet, PhraseBank, lines; in blocks.

A reader never loses a record: one that cannot be used comes with the reason in `fault`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from finsent.data.config import Format
from finsent.data.heads import first_line, separator
from finsent.errors import InputError
from finsent.labels import LABELS

# A record longer than a block cannot be parsed; far above any text that is worth classifying.
BLOCK_BYTES = 8 << 20
_BLOCK_ROWS = 100_000
_MISFITS = 10_000  # malformed records before the first good one that say enough
_READ_BYTES = 1 << 20
_TAIL_BYTES = 64 << 10

ROWS = pa.schema(
    [
        ("source", pa.int32()),  # position in the list of source files
        ("row", pa.int64()),  # number of the record in the file; a CSV's header is 1
        ("raw_text", pa.string()),
        ("raw_label", pa.string()),
        ("unit", pa.string()),  # value of the column that decides the split, else null
        ("fault", pa.string()),  # why the record could not be parsed, else null
    ]
)

CARRIED = "input:"  # before the name of a carried column; no column of `ROWS` begins so
# Metadata of a carried column that holds JSON as the file writes it, e.g. "A-1" in quotes.
AS_JSON = {b"finsent": b"json"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read."""

    text: str
    label: str | None  # None: the texts need no label
    unit: str | None  # None: the text itself decides the split
    last: str | None = None  # of a CSV: where a quote that never closes shows
    header: tuple[str, ...] | None = None  # of a CSV whose cells are all kept, see `read_rows`
    carried: tuple[pa.Field, ...] = ()  # further columns, by their names in the file
    keeps_blank: bool = False  # a blank line of texts or of a CSV is a record

    @property
    def names(self) -> list[str]:
        """Those that are asked for."""
        return [name for name in (self.text, self.label, self.unit) if name is not None]

    @property
    def all_names(self) -> list[str]:
        """Those that are asked for and those that are carried, each once."""
        return list(dict.fromkeys([*self.names, *(field.name for field in self.carried)]))

    @property
    def schema(self) -> pa.Schema:
        """`ROWS`, then the carried columns under names that begin with `CARRIED`."""
        return pa.schema([*ROWS, *(f.with_name(CARRIED + f.name) for f in self.carried)])


def read_rows(
    format: Format,
    stream: BinaryIO,
    source: int,
    encoding: str,
    columns: Columns,
    where: str,
    delimiter: str | None = None,
) -> Iterator[pa.Table]:
    """Stream a file's records in their order as tables of `columns.schema`, block by block.

    Where `columns.header` is set, a CSV's blank lines are records too, and a table of records that
    could be parsed has another column for each of the header's, in its order.

    Args:
        stream: decompressed bytes.
        source: what the column `source` says.
        where: the file, for messages.
        delimiter: between the fields of a CSV; None: the format's usual one.

    Raises:
        InputError: the file cannot be parsed.
    """
    if format == "parquet":
        return _read_parquet(stream, source, columns, where)
    if format == "jsonl":
        return _read_lines(
            stream, source, encoding, columns, lambda line: _json_record(line, columns)
        )
    if format == "phrasebank":
        return _read_lines(stream, source, encoding, columns, _phrasebank_record)
    if format == "text":
        return _read_lines(
            stream, source, encoding, columns, lambda line: (line, None, None, None),
            columns.keeps_blank,
        )  # fmt: skip
    reader = _CsvReader(format, source, columns, separator(format, delimiter), where)
    return reader.read(stream, encoding)


def _table(
    source: int,
    numbers: Any,
    schema: pa.Schema,
    texts: Any,
    labels: Any = None,
    units: Any = None,
    faults: Any = None,
    *carried: Any,
) -> pa.Table:
    count = len(texts)
    sources = pa.repeat(pa.scalar(source, pa.int32()), count)
    given = [sources, pa.array(numbers, pa.int64()), texts, labels, units, faults, *carried]
    given += [None] * (len(schema) - len(given))
    columns = [
        pa.nulls(count, field.type) if column is None else column
        for field, column in zip(schema, given, strict=True)
    ]
    return pa.table(columns, schema=schema)


def _read_parquet(
    stream: BinaryIO, source: int, columns: Columns, where: str
) -> Iterator[pa.Table]:
    first = 1
    try:
        file = pq.ParquetFile(stream, buffer_size=_READ_BYTES)  # not whole row groups at once
        wanted = columns.all_names
        for batch in file.iter_batches(_rows_a_block(file.metadata, wanted), columns=wanted):
            values = {name: _as_text(batch[name], name, where) for name in columns.names}
            yield _table(
                source,
                np.arange(first, first + len(batch)),
                columns.schema,
                values[columns.text],
                None if columns.label is None else values[columns.label],
                None if columns.unit is None else values[columns.unit],
                None,
                *(_plain(batch[field.name]) for field in columns.carried),
            )
            first += len(batch)
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{where} is not valid Parquet near row {first} ({first_line(error)}); mend the file"
        ) from None


def _rows_a_block(metadata: pq.FileMetaData, names: list[str]) -> int:
    """So many rows as unfold to about a block where they are longest."""
    most = 1.0  # bytes
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema in names)
        most = max(most, size / max(group.num_rows, 1))
    return max(1, min(_BLOCK_ROWS, int(BLOCK_BYTES / most)))


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _as_text(values: pa.Array, name: str, where: str) -> pa.Array:
    values = _plain(values)
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            raise InputError(
                f"{where}: column {name!r} is of type {values.type}, and its bytes are not UTF-8; "
                "write the column as strings, or name another"
            ) from None
        raise InputError(
            f"{where}: column {name!r} is of type {values.type}, which is no text, number or time; "
            "name another column"
        ) from None


Record = tuple[str | None, ...]  # text, label, unit, fault, carried columns where it has them


def _read_lines(
    stream: BinaryIO,
    source: int,
    encoding: str,
    columns: Columns,
    parse: Callable[[str], Record],
    keeps_blank: bool = False,
) -> Iterator[pa.Table]:
    width = 4 + len(columns.carried)
    number = 0
    with io.TextIOWrapper(stream, encoding=encoding, newline=None) as lines:
        while block := lines.readlines(BLOCK_BYTES // 2):
            numbered = [
                (number + offset, line.lstrip("\ufeff").rstrip("\n"))
                for offset, line in enumerate(block, start=1)
            ]
            number += len(block)
            used = [(n, parse(line)) for n, line in numbered if keeps_blank or line.strip()]
            if used:
                numbers = [number for number, _ in used]
                records = ((*record, *[None] * (width - len(record))) for _, record in used)
                arrays = [pa.array(column, pa.string()) for column in zip(*records, strict=True)]
                yield _table(source, numbers, columns.schema, *arrays)


def _phrasebank_record(line: str) -> Record:
    text, at, label = line.rpartition("@")
    if not at:
        return line, None, None, "malformed_row: no @ before the label"
    return text, label, None, None


def _json_record(line: str, columns: Columns) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return line, None, None, "malformed_row: not JSON"
    if not isinstance(record, dict):
        return line, None, None, "malformed_row: no JSON object"
    values = [None if name is None else record.get(name)
              for name in (columns.text, columns.label, columns.unit)]  # fmt: skip
    if any(isinstance(value, list | dict) for value in values):
        return line, None, None, "malformed_row: a list or object where a text or number belongs"
    text, label, unit = (
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    )
    # In ASCII, so that half a surrogate pair stays what the file says.
    carried = (
        json.dumps(record[field.name]) if field.name in record else None
        for field in columns.carried
    )
    return _encodable(text), _encodable(label), _encodable(unit), None, *carried


def _encodable(text: str | None) -> str | None:
    # JSON can spell half a surrogate pair, which is no text in any encoding.
    return None if text is None else text.encode("utf-8", "replace").decode()


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
        self._misfit = ""

    def read(self, stream: BinaryIO, encoding: str) -> Iterator[pa.Table]:
        """All records, block by block.

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
        last = [] if columns.last is None else [columns.last]
        wanted = list(columns.header or dict.fromkeys([*columns.all_names, *last]))
        return csv.open_csv(
            stream,
            read_options=csv.ReadOptions(
                use_threads=False,  # only then do broken rows carry their numbers
                block_size=BLOCK_BYTES,
            ),
            parse_options=csv.ParseOptions(
                delimiter=self._delimiter,
                newlines_in_values=True,
                ignore_empty_lines=columns.header is None and not columns.keeps_blank,
                invalid_row_handler=self._keep_broken,
            ),
            convert_options=csv.ConvertOptions(
                # None: all of them, by position, as two may have one name.
                include_columns=None if columns.header else wanted,
                column_types={name: pa.string() for name in wanted},
                strings_can_be_null=False,
            ),
        )

    def _keep_broken(self, row: Any) -> str:
        self._expected = row.expected_columns
        self._broken.append((row.number, row.text, row.actual_columns))
        if row.number - 1 == len(self._broken) > _MISFITS:  # all of them, from the first on
            self._misfit = (
                f"none of the first {_MISFITS:,} records has the header's {row.expected_columns} "
                f"fields, the last one has {row.actual_columns}; set the source's "
                "delimiter, or mend the file"
            )
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
        schema = self._columns.schema
        values = pa.array(texts, pa.string()), None, None, pa.array(faults, pa.string())
        table = _table(self._source, numbers, schema, *values)
        self._waiting = pa.concat_tables([self._waiting, table])

    def _good(self, batch: pa.RecordBatch) -> pa.Table:
        free = np.arange(self._next, self._next + len(batch) + len(self._ahead))
        numbers = free[~np.isin(free, self._ahead)][: len(batch)]
        self._next = int(numbers[-1]) + 1
        self._ahead = self._ahead[self._ahead >= self._next]
        columns = self._columns
        last = columns.text if columns.last is None else columns.last
        self._last_value = batch.column(-1 if columns.header else last)[-1].as_py()
        rows = _table(
            self._source,
            numbers,
            columns.schema,
            batch[columns.text],
            None if columns.label is None else batch[columns.label],
            None if columns.unit is None else batch[columns.unit],
            _swallowed(batch[columns.text], self._delimiter),
            *(batch[field.name] for field in columns.carried),
        )
        for place in range(len(columns.header or ())):
            rows = rows.append_column(str(place), batch.column(place))
        return rows

    def _with_broken(self, good: list[pa.Table]) -> pa.Table:
        """Put broken records in their places among good ones; they wait for those before them."""
        follow = self._ahead == self._next + np.arange(len(self._ahead))
        self._next += int(np.cumprod(follow).sum())
        self._ahead = self._ahead[self._ahead >= self._next]
        is_due = pc.less(self._waiting["row"], self._next)
        due, self._waiting = self._waiting.filter(is_due), self._waiting.filter(pc.invert(is_due))
        # Broken records have no cells: null, where `columns.header` asks for them.
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
            raise InputError(
                f"{self._where}: a quote that opens in record {number} is not closed; close it, "
                "or double it where it belongs to the text"
            )


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


def _swallowed(texts: pa.Array, delimiter: str) -> pa.Array:
    """A stray pair of quotes makes one text of the rows between: such a text holds whole records.

    A line in a text with a label as a field of its own is no part of a sentence.
    """
    label, comma = rf'"?({"|".join(LABELS)})"?', re.escape(delimiter)
    places = (
        rf"{comma}\s*{label}\s*[\r\n]",
        rf"{comma}{label}{comma}[^\r\n]*[\r\n]",
        rf"[\r\n]{label}{comma}",
    )
    pattern = f"(?i){'|'.join(places)}"
    swallowed = pc.match_substring_regex(texts, pattern)
    fault = pa.scalar("swallowed_rows: a stray quote made one text of several records")
    return pc.if_else(swallowed, fault, pa.scalar(None, pa.string()))
