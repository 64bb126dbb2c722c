"""Reader of JSON Lines and JSON: records, their keys and their values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from finsent.data.readers.columns import BLOCK_BYTES, Columns, assemble
from finsent.data.readers.json_stream import DECODER, read_items
from finsent.data.readers.json_values import (
    JsonObject,
    SeveralLabelsError,
    encodable,
    is_json_object,
    nested_value,
    single_label,
)
from finsent.data.readers.layout import FileLayout
from finsent.data.readers.lines import read_lines

_BLOCK_ROWS = 20_000
_NOT_JSON = "malformed_row: not JSON"
_NO_OBJECT = "malformed_row: no JSON object"
_NO_VALUE = "malformed_row: a list or object where a text or number belongs"
_SEVERAL = "malformed_row: several labels"
_ANSWER, _REFUSALS = "answer", ("reject", "ignore")  # Prodigy's key, of an annotator who refused


class _Row(NamedTuple):
    """A record of a file, or why there is none."""

    number: int
    written: str  # the record as the file has it; empty: as its values show
    content: JsonObject
    fault: str | None = None


def parse_line(line: str) -> JsonObject | str:
    """Return the object of a line, or a fault."""
    try:
        record = DECODER.decode(line)
    except (ValueError, RecursionError):
        return _NOT_JSON
    return record if is_json_object(record) else _NO_OBJECT


def read_json_lines(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield the objects of lines; a record's number is that of its line.

    Raises:
        InputError: a line is too long.
    """
    line_count = 0
    for block in read_lines(stream, layout):
        stripped = [line.lstrip("\ufeff").rstrip("\n") for line in block]
        rows = [
            _row(number, line, parse_line(line))
            for number, line in enumerate(stripped, start=line_count + 1)
            if line.strip()
        ]
        line_count += len(block)
        if rows:
            yield _table(source, rows, columns)


def read_json(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield the objects of an array, or objects that follow each other, numbered from 1.

    Raises:
        InputError: the file is not JSON, or it is cut off.
    """
    rows: list[_Row] = []
    size = 0
    for number, item in enumerate(read_items(stream, layout.encoding, layout.where), start=1):
        if is_json_object(item.value):
            rows.append(_row(number, "", item.value))
        else:
            rows.append(_row(number, json.dumps(item.value, ensure_ascii=False), _NO_OBJECT))
        size += item.length
        if len(rows) == _BLOCK_ROWS or size > BLOCK_BYTES // 2:
            yield _table(source, rows, columns)
            rows, size = [], 0
    if rows:
        yield _table(source, rows, columns)


def read_objects(stream: BinaryIO, layout: FileLayout) -> Iterator[JsonObject]:
    """Yield the objects of a JSON Lines or JSON file, without faulty records.

    Raises:
        InputError: the file is not JSON, or it is cut off.
    """
    values: Iterator[Any]
    if layout.format == "json":
        values = (item.value for item in read_items(stream, layout.encoding, layout.where))
    else:
        lines = chain.from_iterable(read_lines(stream, layout))
        values = (parse_line(line.lstrip("\ufeff")) for line in lines)
    return filter(is_json_object, values)


def _row(number: int, written: str, record: JsonObject | str) -> _Row:
    if isinstance(record, str):
        return _Row(number, written, {}, record)
    return _Row(number, written, record)


def _values(record: JsonObject, columns: Columns) -> tuple[dict[str, str | None], str | None]:
    """Return the values of the columns that are read, as texts, or the record's fault."""
    if columns.label and record.get(_ANSWER) in _REFUSALS and _ANSWER not in columns.names:
        return {}, f"refused_label: {_ANSWER} is {record[_ANSWER]}"
    values: dict[str, str | None] = {}
    for name in columns.stored:
        value = nested_value(record, name)
        if name == columns.label or name not in (columns.text, columns.unit):
            try:
                value = single_label(value)
            except SeveralLabelsError:
                return {}, _SEVERAL
        if isinstance(value, list | dict):
            return {}, _NO_VALUE
        text = value if value is None or isinstance(value, str) else json.dumps(value)
        values[name] = encodable(text)
    return values, None


def _table(source: int, rows: list[_Row], columns: Columns) -> pa.Table:
    """Return a block of rows as a table; a faulty row shows itself as its text."""
    faults: list[str | None] = []
    stored: dict[str, list[str | None]] = {name: [] for name in columns.stored}
    carried: dict[str, list[str | None]] = {name: [] for name in columns.carried_stored}
    for row in rows:
        values: dict[str, str | None] = {}
        fault = row.fault
        if fault is None:
            values, fault = _values(row.content, columns)
        for name, cells in stored.items():
            cells.append(values.get(name))
        for name, cells in carried.items():
            cells.append(_as_json(row.content, name))
        if fault is not None:
            written = row.written or json.dumps(row.content, ensure_ascii=False)
            stored[columns.text][-1] = encodable(written)
        faults.append(fault)
    arrays, carried_arrays = (
        {name: pa.array(cells, pa.string()) for name, cells in cells_by_name.items()}
        for cells_by_name in (stored, carried)
    )
    numbers = [row.number for row in rows]
    fault_array = pa.array(faults, pa.string())
    return assemble(source, numbers, arrays, columns, fault_array, carried_arrays)


def _as_json(record: JsonObject, name: str) -> str | None:
    """Return a value as JSON in ASCII, so that half a surrogate pair stays as the file has it."""
    value = nested_value(record, name)
    return None if value is None else json.dumps(value)
