"""Columns of a file that `predict` carries from the rows to the scored file."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.readers.arrow_tables import plain_type
from finsent.data.readers.columns import AS_JSON
from finsent.data.readers.json_values import late_keys, top_keys
from finsent.data.readers.messages import quoted
from finsent.data.sources.column_selection import column_remedy, partitions
from finsent.data.sources.source_file import SourceFile
from finsent.errors import InputError

Carried = Literal["all"] | list[str]


def with_all_rows(file: SourceFile, carried: Carried, field: str) -> SourceFile:
    """Return the file with a reader that drops no row and carries columns.

    Blank lines are rows of a text file, and of a CSV with one column: spreadsheets write an empty
    cell as a blank line. Blank rows between others are rows of a workbook.

    Args:
        carried: names of columns; `all`: those of the file except the text. A name may also be
            that of a nested key (`meta.id`) or of a column in the path (`day=2024-07-01/`).
        field: the setting that names the columns, for messages.

    Raises:
        InputError: the file lacks a column, two columns have its name, or no scored file can hold
            its type.
    """
    names = file.column_names()
    has_one_column = file.file_format.is_csv and len(names or ()) == 1
    stored = _stored(file, carried, names)
    given = {name: v for name, v in partitions(file.location).items() if name not in stored}
    if carried == "all":
        requested = [name for name in stored if name != file.columns.text]
    else:
        requested = list(dict.fromkeys(carried))
    setting = f"{field}={carried!r}"
    for name in requested:
        if names is None and name not in given:
            raise InputError(
                f"{setting}: {file.origin!r} is {file.format}, which has no named columns. "
                "Score the file by itself, without this setting."
            )
        _check(file, name, [*stored, *given], setting, field)
    in_path = {name: given[name] for name in requested if name in given}
    columns = replace(
        file.columns,
        carried=_fields(file, requested, in_path, setting),
        given=tuple({**dict(file.columns.given), **in_path}.items()),
        keeps_blank=file.file_format.has_blank_rows or has_one_column,
    )
    return replace(file, columns=columns)


def _stored(file: SourceFile, carried: Carried, names: list[str] | None) -> list[str]:
    """Return the columns in the file; of JSON the keys of all records, which may differ."""
    if names is None or not carried:
        return []
    read_objects = file.file_format.read_objects
    if read_objects is None:
        return names
    with file.open() as stream:
        keys = top_keys(read_objects(stream, file.layout))
    nested = [name for name in carried if carried != "all" and name not in keys and "." in name]
    if nested:
        with file.open() as stream:
            keys += late_keys(read_objects(stream, file.layout), nested)
    return keys


def _check(file: SourceFile, name: str, names: list[str], setting: str, field: str) -> None:
    """Refuse a column that the file lacks or has several times."""
    if names.count(name) > 1:
        raise InputError(
            f"{setting}: {names.count(name)} columns of {file.origin!r} are named {name!r}. "
            "Rename all but one in the file, or name other columns."
        )
    if name not in names:
        raise InputError(
            f"{setting}: no column {name!r} in {file.origin!r}; its columns are "
            f"{quoted(names)}. {column_remedy(name, names, file.format, field)}"
        )


def _fields(
    file: SourceFile, names: list[str], in_path: dict[str, str | None], setting: str
) -> tuple[pa.Field, ...]:
    """Return names and types of carried columns: texts, except columns that have types."""
    read_schema = file.file_format.read_schema
    if read_schema is None:
        metadata = None if file.file_format.read_objects is None else AS_JSON
        return tuple(
            pa.field(name, pa.string(), metadata=None if name in in_path else metadata)
            for name in names
        )
    with file.open() as stream:
        schema = read_schema(stream, file.layout)
    fields = []
    for name in names:
        type = pa.string() if name in in_path else plain_type(schema.field(name).type)
        field = pa.field(name, type)
        _check_type(file, field, setting)
        fields.append(field)
    return tuple(fields)


def _check_type(file: SourceFile, field: pa.Field, setting: str) -> None:
    """Refuse an Arrow type that `take` does not support or that Parquet does not have."""
    try:
        rows = pa.schema([field]).empty_table().take(pa.array([], pa.int64()))
        pq.write_table(rows, io.BytesIO())
    except pa.ArrowException:
        raise InputError(
            f"{setting}: the column {field.name!r} of {file.origin!r} is of type {field.type}, "
            "which no scored file can hold. Convert it in the file, or name other columns."
        ) from None
