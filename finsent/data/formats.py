"""Readers of labelled files: CSV, TSV, JSON Lines, Parquet, PhraseBank; streaming, in blocks.

A reader never loses a record: one that cannot be used comes with the reason in `fault`.
"""

from __future__ import annotations

import csv as stdlib_csv
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
from finsent.errors import InputError
from finsent.labels import LABELS

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_PHRASEBANK = re.compile(r"^Sentences_(All|\d+)Agree\.txt$")  # Malo et al. 2014, as published

# A record longer than a block cannot be parsed; far above any text that is worth classifying.
BLOCK_BYTES = 8 << 20
_BLOCK_ROWS = 100_000

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


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read."""

    text: str
    label: str | None  # None: the texts need no label
    unit: str | None  # None: the text itself decides the split
    last: str | None = None  # of a CSV: where a quote that never closes shows

    @property
    def names(self) -> list[str]:
        """Those that are asked for."""
        return [name for name in (self.text, self.label, self.unit) if name is not None]


def detect(name: str) -> tuple[Format | None, str | None]:
    """Format and compression by a file's name; None where the name does not say."""
    compression = None
    for suffix, kind in COMPRESSIONS.items():
        if name.lower().endswith(suffix):
            name, compression = name[: -len(suffix)], kind
    if _PHRASEBANK.match(name):
        return "phrasebank", compression
    _, dot, suffix = name.rpartition(".")
    return SUFFIXES.get(dot + suffix.lower()), compression


def agreement(name: str) -> float | None:
    """The share of annotators that agreed on a PhraseBank file's rows, at least; by its name."""
    for suffix in COMPRESSIONS:
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    found = _PHRASEBANK.match(name)
    if found is None:
        return None
    return 1.0 if found[1] == "All" else int(found[1]) / 100


# --- columns ------------------------------------------------------------------------------------


def read_columns(format: Format, stream: BinaryIO, encoding: str, where: str) -> list[str] | None:
    """The column names at the head of a file; None where the format has none (PhraseBank).

    Raises:
        InputError: the head is not what the format says.
    """
    if format == "parquet":
        try:
            return list(pq.read_schema(stream).names)
        except pa.ArrowException as error:
            raise InputError(
                f"{where} is not valid Parquet ({_first_line(error)}); mend the file, or set the "
                "source's format"
            ) from None
    # A sign cut in two at the end of the head is no error.
    text = stream.read(1 << 20).decode(encoding, errors="ignore").lstrip("\ufeff")
    if not text.strip():
        raise InputError(f"{where} is empty; it needs labelled rows")
    if format == "phrasebank":
        if "@" not in text:
            raise InputError(f"{where} has no `sentence@label` line; set the source's format")
        return None
    if format == "jsonl":
        return _json_columns(text, where)
    try:
        records = stdlib_csv.reader(
            io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(format)
        )
        return next(record for record in records if record)
    except (stdlib_csv.Error, StopIteration) as error:
        raise InputError(
            f"{where} has no valid {format.upper()} header ({error}); "
            "mend its first line, e.g. an unclosed quote"
        ) from None


def _json_columns(text: str, where: str) -> list[str]:
    first = next(line for line in text.split("\n") if line.strip())
    try:
        record = json.loads(first)
    except ValueError as error:
        raise InputError(
            f"{where} is not JSON Lines: its first line is not JSON ({error}); write one object "
            "a line, or set the source's format"
        ) from None
    if not isinstance(record, dict):
        raise InputError(
            f"{where} is not JSON Lines: its first line is no object; write one a line"
        )
    return list(record)


def _delimiter(format: Format) -> str:
    return "\t" if format == "tsv" else ","


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# --- rows ---------------------------------------------------------------------------------------

Reader = Callable[[BinaryIO, int, str, Columns, str], Iterator[pa.Table]]


def read_rows(
    format: Format, stream: BinaryIO, source: int, encoding: str, columns: Columns, where: str
) -> Iterator[pa.Table]:
    """Stream a file's records as tables of schema `ROWS`, block by block.

    Args:
        stream: decompressed bytes.
        source: what the column `source` says.
        where: the file, for messages.

    Raises:
        InputError: the file cannot be parsed.
    """
    if format == "parquet":
        return _read_parquet(stream, source, columns, where)
    if format == "jsonl":
        return _read_lines(stream, source, encoding, lambda line: _json_record(line, columns))
    if format == "phrasebank":
        return _read_lines(stream, source, encoding, _phrasebank_record)
    return _read_csv(format, stream, source, encoding, columns, where)


def _table(
    source: int,
    numbers: Any,
    texts: Any,
    labels: Any = None,
    units: Any = None,
    faults: Any = None,
) -> pa.Table:
    count = len(texts)
    nulls = pa.nulls(count, pa.string())
    columns = [nulls if column is None else column for column in (labels, units, faults)]
    sources = pa.repeat(pa.scalar(source, pa.int32()), count)
    return pa.table([sources, pa.array(numbers, pa.int64()), texts, *columns], schema=ROWS)


def _read_parquet(
    stream: BinaryIO, source: int, columns: Columns, where: str
) -> Iterator[pa.Table]:
    first = 1
    try:
        file = pq.ParquetFile(stream)
        for batch in file.iter_batches(_BLOCK_ROWS, columns=list(dict.fromkeys(columns.names))):
            values = {name: _as_text(batch[name], name, where) for name in columns.names}
            yield _table(
                source,
                np.arange(first, first + len(batch)),
                values[columns.text],
                values.get(columns.label or ""),
                values.get(columns.unit or ""),
            )
            first += len(batch)
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{where} is not valid Parquet near row {first} ({_first_line(error)}); mend the file"
        ) from None


def _as_text(values: pa.Array, name: str, where: str) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(
            f"{where}: column {name!r} is of type {values.type}, which is no text, number or time; "
            "name another column"
        ) from None


Record = tuple[str | None, str | None, str | None, str | None]  # text, label, unit, fault


def _read_lines(
    stream: BinaryIO, source: int, encoding: str, parse: Callable[[str], Record]
) -> Iterator[pa.Table]:
    number = 0
    with io.TextIOWrapper(stream, encoding=encoding, newline="\n") as lines:
        while block := lines.readlines(BLOCK_BYTES // 2):
            numbered = [
                (number + offset, line.lstrip("\ufeff").rstrip("\r\n"))
                for offset, line in enumerate(block, start=1)
            ]
            number += len(block)
            records = [(n, *parse(line)) for n, line in numbered if line.strip()]
            if records:
                numbers, *columns = zip(*records, strict=True)
                arrays = [pa.array(column, pa.string()) for column in columns]
                yield _table(source, numbers, *arrays)


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
    return _encodable(text), _encodable(label), _encodable(unit), None


def _encodable(text: str | None) -> str | None:
    # JSON can spell half a surrogate pair, which is no text in any encoding.
    return None if text is None else text.encode("utf-8", "replace").decode()


def _read_csv(
    format: Format, stream: BinaryIO, source: int, encoding: str, columns: Columns, where: str
) -> Iterator[pa.Table]:
    broken: list[tuple[int, str, str]] = []

    def keep_broken(row: Any) -> str:
        fault = f"malformed_row: {row.actual_columns} fields, not {row.expected_columns}"
        broken.append((row.number, row.text, fault))
        return "skip"

    next_row, last = 2, ""  # the header is record 1
    tail = _Tail(stream)
    try:
        for batch in _open_csv(format, tail, encoding, columns, keep_broken):
            taken = {number for number, _, _ in broken}
            numbers = np.fromiter(_free_numbers(next_row, len(batch), taken), np.int64, len(batch))
            next_row = int(numbers[-1]) + 1 if len(batch) else next_row
            last = batch.column(columns.last or columns.text)[-1].as_py() if len(batch) else last
            yield _table(
                source,
                numbers,
                batch[columns.text],
                None if columns.label is None else batch[columns.label],
                None if columns.unit is None else batch[columns.unit],
                _swallowed(batch[columns.text], format),
            )
    except pa.ArrowInvalid as error:
        problem = _first_line(error)
        if "Empty CSV" in problem:  # a header and not even the end of its line
            return
        raise InputError(
            f"{where} is not valid {format.upper()} near record {next_row} ({problem}); "
            "mend the file, e.g. an unclosed quote"
        ) from None
    opened = [number for number, text, _ in broken if text.count('"') % 2 and "\n" in text]
    if not opened and "\n" in last and not tail.ends_quoted:
        opened = [next_row - 1]
    if opened:
        raise unclosed_quote(where, opened[0])
    if broken:
        rows, texts, faults = zip(*broken, strict=True)
        yield _table(source, rows, pa.array(texts, pa.string()), faults=pa.array(faults))


class _Tail(io.RawIOBase):
    """A stream that remembers its end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._tail = stream, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._stream.read(size)
        self._tail = (self._tail + chunk)[-64:] if len(chunk) < 64 else bytes(chunk[-64:])
        return chunk

    @property
    def ends_quoted(self) -> bool:
        """Whether a quote is the last sign, in any encoding that CSV comes in."""
        return self._tail.replace(b"\0", b"").rstrip().endswith(b'"')


def unclosed_quote(where: str, record: int) -> InputError:
    """An unclosed quote makes one record of the rest of the file: never let that pass as one."""
    return InputError(
        f"{where}: a quote that opens in record {record} is not closed; close it, or double it "
        "where it belongs to the text"
    )


def _open_csv(
    format: Format,
    stream: io.RawIOBase,
    encoding: str,
    columns: Columns,
    keep_broken: Callable[[Any], str],
) -> csv.CSVStreamingReader:
    wanted = list(dict.fromkeys([*columns.names, *([columns.last] if columns.last else [])]))
    return csv.open_csv(
        stream,
        read_options=csv.ReadOptions(
            use_threads=False,  # only then do broken rows carry their numbers
            block_size=BLOCK_BYTES,
            encoding=encoding,
        ),
        parse_options=csv.ParseOptions(
            delimiter=_delimiter(format), newlines_in_values=True, invalid_row_handler=keep_broken
        ),
        convert_options=csv.ConvertOptions(
            include_columns=wanted,
            column_types={name: pa.string() for name in wanted},
            strings_can_be_null=False,
        ),
    )


def _swallowed(texts: pa.Array, format: Format) -> pa.Array:
    """A stray pair of quotes makes one text of the rows between: such a text holds whole records.

    A line in a text with a label as a field of its own is no part of a sentence.
    """
    label, comma = rf'"?({"|".join(LABELS)})"?', _delimiter(format)
    places = (
        rf"{comma}\s*{label}\s*[\r\n]",
        rf"{comma}{label}{comma}[^\r\n]*[\r\n]",
        rf"[\r\n]{label}{comma}",
    )
    pattern = f"(?i){'|'.join(places)}"
    swallowed = pc.match_substring_regex(texts, pattern)
    fault = pa.scalar("swallowed_rows: a stray quote made one text of several records")
    return pc.if_else(swallowed, fault, pa.scalar(None, pa.string()))


def _free_numbers(start: int, count: int, taken: set[int]) -> Iterator[int]:
    number = start
    while count:
        if number not in taken:
            yield number
            count -= 1
        number += 1
