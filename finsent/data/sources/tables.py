"""Readers of files that know their columns' types: Parquet, Arrow (Feather) and workbooks."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finsent.data.config import Format
from finsent.data.sources.columns import BLOCK_BYTES, Columns, assemble
from finsent.data.sources.heads import first_line
from finsent.data.sources.json_records import SeveralLabelsError, single_label
from finsent.data.sources.spans import check_sheets, check_span
from finsent.errors import InputError
from finsent.extras import missing_extra

_BLOCK_ROWS = 100_000
_READ_BYTES = 1 << 20


def read_parquet(stream: BinaryIO, source: int, columns: Columns, where: str) -> Iterator[pa.Table]:
    """Return the rows of a Parquet file, block by block.

    Raises:
        InputError: the file is damaged, or a column is of a type that holds no text.
    """
    first = 1
    try:
        file = pq.ParquetFile(stream, buffer_size=_READ_BYTES)  # not whole row groups at once
        names = class_names(file.schema_arrow)
        wanted = columns.all_stored
        for batch in file.iter_batches(_rows_a_block(file.metadata, wanted), columns=wanted):
            yield _block(batch, source, first, columns, names, where)
            first += len(batch)
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{where} is not valid Parquet near row {first} ({first_line(error)}); mend the file"
        ) from None


def _rows_a_block(metadata: pq.FileMetaData, names: list[str]) -> int:
    """So many rows as unfold to about a block where they are longest."""
    most, prefixes = 1.0, tuple(f"{name}." for name in names)  # bytes; nested ones have dots
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        read = (c for c in chunks if f"{c.path_in_schema}.".startswith(prefixes))
        size = sum(c.total_uncompressed_size for c in read)
        most = max(most, size / max(group.num_rows, 1))
    return max(1, min(_BLOCK_ROWS, int(BLOCK_BYTES / most)))


def read_arrow(stream: BinaryIO, source: int, columns: Columns, where: str) -> Iterator[pa.Table]:
    """Return the rows of an Arrow file or stream, e.g. a Feather file, batch by batch.

    Raises:
        InputError: the file is damaged, or a column is of a type that holds no text.
    """
    first = 1
    with _valid_arrow(where):
        batches = _batches(stream)
        names = class_names(batches.schema)
        for batch in _each(batches):
            for start in range(0, len(batch), _BLOCK_ROWS):
                part = batch.slice(start, _BLOCK_ROWS)
                yield _block(part, source, first, columns, names, where)
                first += len(part)


def arrow_columns(stream: BinaryIO, where: str) -> list[str]:
    """Return the names of an Arrow file's columns.

    Raises:
        InputError: the file is damaged.
    """
    return list(read_schema("arrow", stream, where).names)


@contextmanager
def _valid_arrow(where: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{where} is not a valid Arrow or Feather (version 2) file ({first_line(error)}); "
            "write it again, e.g. as Parquet"
        ) from None


def _batches(stream: BinaryIO) -> Any:
    head = stream.read(6)
    stream.seek(0)
    return pa.ipc.open_file(stream) if head == b"ARROW1" else pa.ipc.open_stream(stream)


def _each(batches: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(batches, pa.ipc.RecordBatchFileReader):
        return (batches.get_batch(place) for place in range(batches.num_record_batches))
    return iter(batches)


def _block(
    batch: pa.RecordBatch,
    source: int,
    first: int,
    columns: Columns,
    names: dict[str, list[str]],
    where: str,
) -> pa.Table:
    for name in dict.fromkeys([*columns.stored, *columns.carried_stored]):
        _check_utf8(batch[name], name, where)
    values = {}
    for name in columns.stored:
        column = batch[name]
        if name in names:
            column = _named(column, names[name])
        elif name != columns.text and _is_list(column.type):
            column = _unwrapped(column)
        values[name] = _as_text(column, name, where)
    carried = {name: _plain(batch[name]) for name in columns.carried_stored}
    numbers = np.arange(first, first + len(batch))
    return assemble(source, numbers, values, columns, carried=carried)


def _check_utf8(values: pa.Array, name: str, where: str) -> None:
    """Refuse strings whose bytes are not UTF-8, which some writers store unchecked."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{where}: column {name!r} holds strings that are not valid ({first_line(error)}); "
            "write the column as UTF-8, or name another"
        ) from None


def read_schema(format: Format, stream: BinaryIO, where: str) -> pa.Schema:
    """Return names and types of the columns of a Parquet or an Arrow file.

    Raises:
        InputError: the file is damaged.
    """
    if format == "parquet":
        return pq.read_schema(stream)
    with _valid_arrow(where):
        return _batches(stream).schema


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of the classes in columns of numbers, where Hugging Face's metadata is."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        features = info["info"]["features"]
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel" and pa.types.is_integer(schema.field(name).type)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _named(values: pa.Array, names: list[str]) -> pa.Array:
    ids = values.cast(pa.int64())
    known = pc.and_(pc.greater_equal(ids, 0), pc.less(ids, len(names)))
    # -1 says that a row has no label; a number beyond the names stays a number.
    place = pc.if_else(known, ids, pa.scalar(None, pa.int64()))
    beyond = pc.if_else(pc.less(ids, 0), pa.scalar(None, pa.string()), ids.cast(pa.string()))
    return pc.coalesce(pa.array(names, pa.string()).take(place), beyond)


def _is_list(type: pa.DataType) -> bool:
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_struct(type))


def _unwrapped(values: pa.Array) -> pa.Array:
    """Lists of one as their item; several are shown as JSON, which is no label."""
    cells = []
    for value in values.to_pylist():
        try:
            cells.append(single_label(value))
        except SeveralLabelsError:
            cells.append(value)
    if any(isinstance(cell, dict) for cell in cells):
        return values
    if any(isinstance(cell, list) for cell in cells):
        cells = [json.dumps(c, default=str) if isinstance(c, list) else c for c in cells]
        cells = [c if c is None else str(c) for c in cells]
    return pa.array(cells)


def plain_type(type: pa.DataType) -> pa.DataType:
    """Return the type in which the values of a column are carried."""
    if pa.types.is_dictionary(type):
        return plain_type(type.value_type)
    # Polars writes views, of which Arrow cannot take rows.
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(
        type, type
    )


def _plain(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(plain_type(values.type))


def _as_text(values: pa.Array, name: str, where: str) -> pa.Array:
    values = _plain(values)
    if pa.types.is_floating(values.type):  # pandas says so that a value is missing
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
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


# --- workbooks ------------------------------------------------------------------------------------


def read_excel(
    stream: BinaryIO,
    source: int,
    columns: Columns,
    where: str,
    sheet: str | None,
    has_header: bool,
) -> Iterator[pa.Table]:
    """Return the rows of a workbook's sheet, numbered as the sheet numbers them.

    Raises:
        InputError: the file is no workbook, or its sheet is not known.
    """
    rows = _sheet_rows(stream, where, sheet, columns.keeps_blank)
    if not rows:
        return
    names = _header(rows, has_header)
    rows = rows[1:] if has_header else rows
    places = {name: names.index(name) for name in columns.all_stored}
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        values = {
            name: pa.array([_cell(row[place]) for _, row in block], pa.string())
            for name, place in places.items()
        }
        yield assemble(source, [number for number, _ in block], values, columns)


def excel_columns(stream: BinaryIO, where: str, sheet: str | None, has_header: bool) -> list[str]:
    """Return the names of a sheet's columns.

    Raises:
        InputError: the file is no workbook, its sheet is not known, or the sheet is empty.
    """
    rows = _sheet_rows(stream, where, sheet)
    if not rows:
        raise InputError(f"{where} is empty; it needs labeled rows")
    return _header(rows, has_header)


def _sheet_rows(
    stream: BinaryIO, where: str, sheet: str | None, keeps_blank: bool = False
) -> list[tuple[int, list[Any]]]:
    """The rows of a sheet with their numbers; blank ones only between others, where they count."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise missing_extra("python_calamine", where, "save the sheet as CSV") from None
    try:
        check_sheets(stream, where)
        book = CalamineWorkbook.from_filelike(stream)
        named = [name for name in book.sheet_names if sheet in (None, name)]
        sheets = {name: _filled_rows(book.get_sheet_by_name(name), where) for name in named}
    except CalamineError as error:
        raise InputError(
            f"{where} is no workbook that can be read ({first_line(error)}); save it again without "
            "a password, or as CSV"
        ) from None
    if not sheets:
        known = ", ".join(map(repr, book.sheet_names))
        raise InputError(f"{where} has no sheet {sheet!r}; set sheet to one of {known}")
    filled = {name: rows for name, rows in sheets.items() if rows}
    if len(filled) > 1:
        raise InputError(
            f"{where} has rows in the sheets {', '.join(map(repr, filled))}; set sheet to one of "
            "them for this source"
        )
    if not filled:
        return []
    [rows] = filled.values()
    if not keeps_blank:
        return rows
    blank = [""] * len(rows[0][1])
    by_number = dict(rows)
    return [(number, by_number.get(number, blank)) for number in range(rows[0][0], rows[-1][0] + 1)]


def _filled_rows(sheet: Any, where: str) -> list[tuple[int, list[Any]]]:
    last_row, last_column = sheet.end or (0, 0)
    check_span(last_row + 1, last_column + 1, where)  # rows begin at A1, wherever the table does
    rows = enumerate(sheet.to_python(skip_empty_area=False), start=1)
    return [(number, row) for number, row in rows if any(cell != "" for cell in row)]


def _header(rows: list[tuple[int, list[Any]]], has_header: bool) -> list[str]:
    first = rows[0][1]
    if not has_header:
        return [str(place) for place in range(1, len(first) + 1)]
    return [_cell(cell) or "" for cell in first]


def _cell(value: Any) -> str | None:
    """A cell as the sheet shows it: whole numbers without a point, times as ISO has them."""
    if value == "" or value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
