"""Readers of files with typed columns: Parquet and Arrow (Feather)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finsent.data.readers.columns import BLOCK_BYTES, Columns, assemble
from finsent.data.readers.json_values import SeveralLabelsError, is_json_object, single_label
from finsent.data.readers.layout import FileLayout
from finsent.errors import InputError, one_line

_BLOCK_ROWS = 100_000
_READ_BYTES = 1 << 20
_FILE_MARK = b"ARROW1"  # first bytes of an Arrow file; a stream has no mark


def parquet_schema(stream: BinaryIO, layout: FileLayout) -> pa.Schema:
    """Return names and types of a Parquet file's columns.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return pq.read_schema(stream)
    except pa.ArrowException as error:
        raise InputError(
            f"{layout.where} is not valid Parquet ({one_line(error)}). Repair the file, or set "
            "the source's format."
        ) from None


def parquet_names(stream: BinaryIO, layout: FileLayout) -> list[str]:
    """Return the names of a Parquet file's columns.

    Raises:
        InputError: the file is damaged.
    """
    return list(parquet_schema(stream, layout).names)


def count_parquet_rows(stream: BinaryIO) -> int:
    """Return the number of rows by a Parquet file's metadata."""
    return int(pq.ParquetFile(stream).metadata.num_rows)


def read_parquet(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, block by block.

    Raises:
        InputError: the file is damaged, or a column is of a type that holds no text.
    """
    first_row = 1
    try:
        file = pq.ParquetFile(stream, buffer_size=_READ_BYTES)  # not a complete row group at once
        classes = class_names(file.schema_arrow)
        names = columns.all_stored
        for batch in file.iter_batches(_rows_per_block(file.metadata, names), columns=names):
            yield _block(batch, source, first_row, columns, classes, layout.where)
            first_row += len(batch)
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{layout.where} is not valid Parquet near row {first_row} ({one_line(error)}). "
            "Repair the file."
        ) from None


def _rows_per_block(metadata: pq.FileMetaData, names: list[str]) -> int:
    """Return the number of rows that unfold to about a block in the row group of longest rows."""
    row_bytes, prefixes = 1.0, tuple(f"{name}." for name in names)  # nested columns have dots
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        read = (c for c in chunks if f"{c.path_in_schema}.".startswith(prefixes))
        size = sum(c.total_uncompressed_size for c in read)
        row_bytes = max(row_bytes, size / max(group.num_rows, 1))
    return max(1, min(_BLOCK_ROWS, int(BLOCK_BYTES / row_bytes)))


def read_arrow(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield the rows of an Arrow file or stream, e.g. a Feather file, batch by batch.

    Raises:
        InputError: the file is damaged, or a column is of a type that holds no text.
    """
    first_row = 1
    with _valid_arrow(layout.where):
        reader = _open_arrow(stream)
        classes = class_names(reader.schema)
        for batch in _batches(reader):
            for start in range(0, len(batch), _BLOCK_ROWS):
                block = batch.slice(start, _BLOCK_ROWS)
                yield _block(block, source, first_row, columns, classes, layout.where)
                first_row += len(block)


def arrow_schema(stream: BinaryIO, layout: FileLayout) -> pa.Schema:
    """Return names and types of an Arrow file's columns.

    Raises:
        InputError: the file is damaged.
    """
    with _valid_arrow(layout.where):
        return _open_arrow(stream).schema


def arrow_names(stream: BinaryIO, layout: FileLayout) -> list[str]:
    """Return the names of an Arrow file's columns.

    Raises:
        InputError: the file is damaged.
    """
    return list(arrow_schema(stream, layout).names)


@contextmanager
def _valid_arrow(where: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{where} is not a valid Arrow or Feather (version 2) file ({one_line(error)}). "
            "Write it again, e.g. as Parquet."
        ) from None


def _open_arrow(stream: BinaryIO) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    head = stream.read(len(_FILE_MARK))
    stream.seek(0)
    return pa.ipc.open_file(stream) if head == _FILE_MARK else pa.ipc.open_stream(stream)


def _batches(
    reader: pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader,
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return iter(reader)


def _block(
    batch: pa.RecordBatch,
    source: int,
    first: int,
    columns: Columns,
    classes: dict[str, list[str]],
    where: str,
) -> pa.Table:
    """Return a batch as a table of `columns.schema`.

    Args:
        first: number of the batch's first row.
        classes: result of `class_names`.
    """
    for name in columns.all_stored:
        _check_utf8(batch[name], name, where)
    values = {}
    for name in columns.stored:
        column = batch[name]
        if name in classes:
            column = _class_labels(column, classes[name])
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
            f"{where}: column {name!r} holds strings that are not valid ({one_line(error)}). "
            "Write the column as UTF-8, or name another."
        ) from None


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the class names of columns of numbers, from Hugging Face's metadata."""
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


def _class_labels(ids: pa.Array, names: list[str]) -> pa.Array:
    ids = ids.cast(pa.int64())
    is_named = pc.and_(pc.greater_equal(ids, 0), pc.less(ids, len(names)))
    # -1 is a row without a label; a number beyond the names stays a number.
    named_ids = pc.if_else(is_named, ids, pa.scalar(None, pa.int64()))
    others = pc.if_else(pc.less(ids, 0), pa.scalar(None, pa.string()), ids.cast(pa.string()))
    return pc.coalesce(pa.array(names, pa.string()).take(named_ids), others)


def _is_list(type: pa.DataType) -> bool:
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_struct(type))


def _unwrapped(values: pa.Array) -> pa.Array:
    """Return lists of one as their item, and longer lists as JSON, which is not a label."""
    cells = []
    for value in values.to_pylist():
        try:
            cells.append(single_label(value))
        except SeveralLabelsError:
            cells.append(value)
    if any(map(is_json_object, cells)):
        return values
    if any(isinstance(cell, list) for cell in cells):
        cells = [json.dumps(c, default=str) if isinstance(c, list) else c for c in cells]
        cells = [c if c is None else str(c) for c in cells]
    return pa.array(cells)


def plain_type(type: pa.DataType) -> pa.DataType:
    """Return the type of the carried copy of a column of a given type."""
    if pa.types.is_dictionary(type):
        return plain_type(type.value_type)
    # Polars writes views; Arrow's `take` does not support them.
    return {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(
        type, type
    )


def _plain(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(plain_type(values.type))


def _as_text(values: pa.Array, name: str, where: str) -> pa.Array:
    values = _plain(values)
    if pa.types.is_floating(values.type):  # pandas writes NaN for a missing value
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
            raise InputError(
                f"{where}: column {name!r} is of type {values.type}, and its bytes are not UTF-8. "
                "Write the column as strings, or name another."
            ) from None
        raise InputError(
            f"{where}: column {name!r} is of type {values.type}, not text, a number or a time. "
            "Name another column."
        ) from None
