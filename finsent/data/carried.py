"""Columns of a file that are carried from its rows to their answers."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.formats import AS_JSON
from finsent.data.heads import column_remedy
from finsent.data.sources import SourceFile
from finsent.errors import InputError

Carried = Literal["all"] | list[str]


def with_all_rows(file: SourceFile, carried: Carried, field: str) -> SourceFile:
    """Return the file with a reader that drops no row and carries columns.

    Blank lines are rows of a text file and of a CSV with one column: spreadsheets write an empty
    cell so.

    Args:
        carried: names of columns; `all`: those of the file but for the text.
        field: the setting that names the columns, for messages.

    Raises:
        InputError: the file lacks a column, or two columns have its name.
    """
    names = file.column_names()
    keeps_blank = file.format == "text" or (file.format in ("csv", "tsv") and len(names or []) == 1)
    wanted = _wanted(file, carried, names, field) if carried else []
    fields = tuple(_field(file, name) for name in wanted)
    columns = replace(file.columns, carried=fields, keeps_blank=keeps_blank)
    return replace(file, columns=columns)


def _wanted(file: SourceFile, carried: Carried, names: list[str] | None, field: str) -> list[str]:
    if names is None:
        if carried == "all":
            return []
        raise InputError(
            f"{field}={carried}: {file.origin!r} is {file.format}, which has no named columns. "
            "Score the file by itself, without this setting."
        )
    if file.format == "jsonl":
        names = _keys(file)  # each record has its own
    wanted = [name for name in names if name != file.columns.text] if carried == "all" else carried
    for name in wanted:
        if names.count(name) > 1:
            raise InputError(
                f"{field}={carried!r}: {names.count(name)} columns of {file.origin!r} are named "
                f"{name!r}. Rename all but one in the file, or name other columns."
            )
        if name not in names:
            shown = ", ".join(map(repr, names))[:300]
            raise InputError(
                f"{field}={carried!r}: no column {name!r} in {file.origin!r}; its columns are "
                f"{shown}; {column_remedy(name, names, file.format, field)}."
            )
    return list(dict.fromkeys(wanted))


def _field(file: SourceFile, name: str) -> pa.Field:
    """Name and type of a carried column: texts, but for Parquet, whose types stay."""
    if file.format == "jsonl":
        return pa.field(name, pa.string(), metadata=AS_JSON)
    if file.format != "parquet":
        return pa.field(name, pa.string())
    with file.open() as stream:
        type = pq.read_schema(stream).field(name).type
    return pa.field(name, type.value_type if pa.types.is_dictionary(type) else type)


def _keys(file: SourceFile) -> list[str]:
    """All keys of a JSON Lines file's records, in the order in which they come up."""
    keys: dict[str, None] = {}
    with file.open() as stream, io.TextIOWrapper(stream, file.encoding, newline=None) as lines:
        for line in lines:
            try:
                record = json.loads(line.lstrip("\ufeff"))
            except (ValueError, RecursionError):  # the row will say so
                continue
            if isinstance(record, dict):
                keys |= dict.fromkeys(record)
    return list(keys)
