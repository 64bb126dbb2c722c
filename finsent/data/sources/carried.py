"""Columns of a file that are carried from its rows to their answers."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.sources.columns import AS_JSON
from finsent.data.sources.contents import CSV
from finsent.data.sources.files import SourceFile
from finsent.data.sources.heads import column_remedy
from finsent.data.sources.json_records import late_keys, top_keys
from finsent.data.sources.tables import plain_type, read_schema
from finsent.data.sources.wanted import partitions
from finsent.errors import InputError

Carried = Literal["all"] | list[str]


def with_all_rows(file: SourceFile, carried: Carried, field: str) -> SourceFile:
    """Return the file with a reader that drops no row and carries columns.

    Blank lines are rows of a text file and of a CSV with one column: spreadsheets write an empty
    cell so. Blank rows between others are rows of a workbook.

    Args:
        carried: names of columns; `all`: those of the file but for the text. A name may also be
            that of a nested key (`meta.id`) or of a column in the path (`day=2024-07-01/`).
        field: the setting that names the columns, for messages.

    Raises:
        InputError: the file lacks a column, two columns have its name, or no scored file can hold
            its type.
    """
    names = file.column_names()
    keeps_blank = file.format in ("text", "excel") or (file.format in CSV and len(names or ()) == 1)
    stored = _stored(file, carried, names)
    given = {name: v for name, v in partitions(file.place).items() if name not in stored}
    if carried == "all":
        wanted = [name for name in stored if name != file.columns.text]
    else:
        wanted = list(dict.fromkeys(carried))
    _check(file, wanted, [*stored, *given], names is None, f"{field}={carried!r}", field)
    in_path = {name: given[name] for name in wanted if name in given}
    columns = replace(
        file.columns,
        carried=_fields(file, wanted, in_path, f"{field}={carried!r}"),
        given=tuple({**dict(file.columns.given), **in_path}.items()),
        keeps_blank=keeps_blank,
    )
    return replace(file, columns=columns)


def _stored(file: SourceFile, carried: Carried, names: list[str] | None) -> list[str]:
    """Names of the columns in the file; of JSON the keys of all records, as each has its own."""
    if names is None or not carried:
        return []
    if file.format not in ("json", "jsonl"):
        return names
    with file.open() as stream:
        keys = top_keys(file.format, stream, file.encoding, file.where)
    nested = [name for name in carried if carried != "all" and name not in keys and "." in name]
    if nested:
        with file.open() as stream:
            keys += late_keys(file.format, stream, file.encoding, file.where, nested)
    return keys


def _check(
    file: SourceFile, wanted: list[str], names: list[str], is_bare: bool, setting: str, field: str
) -> None:
    for name in wanted:
        if names.count(name) > 1:
            raise InputError(
                f"{setting}: {names.count(name)} columns of {file.origin!r} are named {name!r}. "
                "Rename all but one in the file, or name other columns."
            )
        if name not in names and is_bare:
            raise InputError(
                f"{setting}: {file.origin!r} is {file.format}, which has no named columns. "
                "Score the file by itself, without this setting."
            )
        if name not in names:
            shown = ", ".join(map(repr, names))[:300]
            raise InputError(
                f"{setting}: no column {name!r} in {file.origin!r}; its columns are "
                f"{shown}; {column_remedy(name, names, file.format, field)}."
            )


def _fields(
    file: SourceFile, wanted: list[str], in_path: dict[str, str | None], setting: str
) -> tuple[pa.Field, ...]:
    """Names and types of carried columns: texts, but for tables with types, which stay."""
    if file.format not in ("parquet", "arrow"):
        metadata = AS_JSON if file.format in ("json", "jsonl") else None
        return tuple(
            pa.field(name, pa.string(), metadata=None if name in in_path else metadata)
            for name in wanted
        )
    with file.open() as stream:
        schema = read_schema(file.format, stream, file.where)
    fields = []
    for name in wanted:
        type = pa.string() if name in in_path else plain_type(schema.field(name).type)
        field = pa.field(name, type)
        _check_type(file, field, setting)
        fields.append(field)
    return tuple(fields)


def _check_type(file: SourceFile, field: pa.Field, setting: str) -> None:
    """Refuse a type of Arrow of which rows cannot be taken, or that Parquet does not have."""
    try:
        rows = pa.schema([field]).empty_table().take(pa.array([], pa.int64()))
        pq.write_table(rows, io.BytesIO())
    except pa.ArrowException:
        raise InputError(
            f"{setting}: the column {field.name!r} of {file.origin!r} is of type {field.type}, "
            "which no scored file can hold. Convert it in the file, or name other columns."
        ) from None
