"""Selection of a file's columns, and the errors and remedies for missing columns."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import unquote

from finsent.data.config import DataConfig, Format, SourceConfig
from finsent.data.readers.columns import Columns
from finsent.data.readers.csv_header import DELIMITER_NAMES, likely_delimiter
from finsent.data.readers.formats import FORMATS
from finsent.data.readers.messages import quoted
from finsent.data.sources.locations import Location
from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.spellings import spellings

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
TEXT_NAMES = ("text", "sentence", "Sentence")  # usual names of columns in data sets of hubs
LABEL_NAMES = ("label", "sentiment", "Sentiment")


def partitions(location: Location) -> dict[str, str | None]:
    """Return the columns that a path states, as Hive and Spark write them: `label=positive/`."""
    values: dict[str, str | None] = {}
    for folder in location.parts[:-1]:
        name, equals, value = folder.partition("=")
        if equals and name:
            value = unquote(value)
            values[unquote(name)] = None if value == _HIVE_NULL else value
    return values


def usual_column(columns: tuple[str, ...], configured: str, names: tuple[str, ...]) -> str:
    """Return the configured column, or where a data set lacks it the first that has a usual name.

    Args:
        columns: of the data set.
        names: usual names.
    """
    if configured in columns:
        return configured
    return next((name for name in names if name in columns), configured)


def requested_columns(
    source: SourceConfig,
    format: Format,
    config: DataConfig,
    excluded: bool,
    hub_columns: tuple[str, ...],
    where: str,
) -> Columns:
    """Return the columns that a source's settings request.

    Args:
        excluded: the source's texts need no label.
        hub_columns: columns of a hub's data set; empty: not known.
        where: the file, for messages.

    Raises:
        InputError: the format has no such columns.
    """
    unit = config.split.group_by or config.split.time.column
    if source.where and not FORMATS[format].has_columns:
        raise InputError(
            f"{where} has no columns, so where={source.where} cannot select rows. Leave where out."
        )
    if format == "text":
        return Columns("text", None if excluded else source.label or config.label_column, None)
    if format == "phrasebank":
        if unit is not None and not excluded:
            raise InputError(
                f"{where}: PhraseBank files have no column {unit!r}, which data.split needs. "
                "Leave the file out, or split by text."
            )
        return Columns("sentence", None if excluded else "label", None)
    text, label = config.text_column, config.label_column
    if hub_columns:
        text = usual_column(hub_columns, text, TEXT_NAMES)
        label = usual_column(hub_columns, label, LABEL_NAMES)
    label = source.label or label
    conditions = {
        name: tuple(word for value in values for word in spellings(value))
        for name, values in source.where.items()
    }
    return Columns(
        text=source.text or text,
        label=None if excluded else label,
        unit=None if excluded else unit,
        conditions=tuple(conditions.items()),
    )


class _Request(NamedTuple):
    column: str | None
    field: str  # the setting that names the column
    remedy: str  # the setting to change


def present_columns(
    columns: Columns,
    names: list[str] | None,
    format: Format,
    location: Location,
    source: SourceConfig,
    where: str,
) -> Columns:
    """Return the columns with those that the path states, once all of them are known to exist.

    Args:
        names: of the file's columns; None: its format has none.
        where: the file, for messages.

    Raises:
        InputError: a column is in neither the file nor its path, or twice in the file.
    """
    in_path = partitions(location)
    if format == "text":
        if columns.label is not None and columns.label not in in_path:
            raise InputError(
                f"{where} is text without labels. Name a file that has a column of them."
            )
        names = [columns.text]
    if names is None:
        return columns
    given = {name: in_path[name] for name in columns.names if name in in_path and name not in names}
    given.pop(columns.text, None)
    columns = replace(columns, given=tuple(given.items()))
    for request in _requests(columns, source):
        if request.column is not None and request.column not in given:
            _check_column(request.column, request.field, request.remedy, names, format, where)
    if columns.text == columns.label:
        raise InputError(
            f"{where}: text and label are both the column {columns.text!r}. Name two columns."
        )
    if FORMATS[format].is_csv:
        columns = replace(columns, last=names[-1], all=tuple(names))
    return columns


def _requests(columns: Columns, source: SourceConfig) -> list[_Request]:
    text_field = "text" if source.text else "data.text_column"
    label_field = "label" if source.label else "data.label_column"
    unit_field = "data.split.group_by or data.split.time.column"
    return [
        _Request(columns.text, text_field, "text for this source"),
        _Request(columns.label, label_field, "label for this source"),
        _Request(columns.unit, unit_field, unit_field),
        *(_Request(name, "where", "where for this source") for name, _ in columns.conditions),
    ]


def _check_column(
    column: str, field: str, remedy: str, names: list[str], format: Format, where: str
) -> None:
    if names.count(column) == 1:
        return
    if column in names:
        raise InputError(
            f"{field}={column!r}: {names.count(column)} columns of {where} have this name. "
            f"Rename all but one in the file, or set {remedy} to another of {quoted(names)}."
        )
    raise InputError(
        f"{field}={column!r}: no such column in {where}; its columns are {quoted(names)}. "
        f"{column_remedy(column, names, format, remedy)}"
    )


def column_remedy(column: str, names: list[str], format: Format, setting: str) -> str:
    """Return what to do about a column that a file lacks, in one sentence or two.

    Args:
        column: its name.
        names: of the file's columns.
        setting: the setting that names the column, for messages.
    """
    near = [name for name in names if name.strip().casefold() == column.strip().casefold()]
    if near:
        return f"Did you mean {near[0]!r}? Set {setting} to it."
    delimiter = likely_delimiter(names[0])
    if FORMATS[format].is_csv and len(names) == 1 and delimiter is not None:
        remedy = f"delimiter: {json.dumps(delimiter)}"
        remedy += " or format: tsv" if delimiter == "\t" else ""
        return f"It looks separated by {DELIMITER_NAMES[delimiter]}: set {remedy} for this source."
    remedy = f"Set {setting} to one of them"
    numbers = [number for number, name in enumerate(names, 1) if name.strip().lower() in LABELS]
    if numbers:
        remedy += ", or where its first line is a row, put a header above it"
    if numbers and "header" in FORMATS[format].settings:
        others = {len(name): n for n, name in enumerate(names, 1) if n != numbers[0]}
        text = f"text: {others[max(others)]}, " if others else ""
        remedy += f" or set header: none, {text}label: {numbers[0]} for this source"
    return f"{remedy}."
