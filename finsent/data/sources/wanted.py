"""Which columns of a file are read, and what to say where one is not there."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from finsent.data.config import DataConfig, Format, SourceConfig
from finsent.data.sources import heads
from finsent.data.sources.columns import Columns
from finsent.data.sources.places import Place
from finsent.errors import InputError
from finsent.spellings import spellings

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions(place: Place) -> dict[str, str | None]:
    """Return the columns that a path names, as Hive and Spark write: `label=positive/`."""
    found: dict[str, str | None] = {}
    for part in place.parts[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            value = unquote(value)
            found[unquote(name)] = None if value == _HIVE_NULL else value
    return found


def requested_columns(
    source: SourceConfig,
    format: Format,
    config: DataConfig,
    excluded: bool,
    hub_columns: tuple[str, ...],
    where: str,
) -> Columns:
    """Return the columns that a source's settings request.

    Raises:
        InputError: the format has no such columns.
    """
    unit = config.split.group_by or config.split.time.column
    if source.where and format in ("text", "phrasebank"):
        raise InputError(
            f"{where} has no columns, by which where={source.where} could choose; leave where out"
        )
    if format == "text":
        return Columns("text", None if excluded else source.label or config.label_column, None)
    if format == "phrasebank":
        if unit is not None and not excluded:
            raise InputError(
                f"{where}: PhraseBank files have no column {unit!r}, by which "
                "data.split divides the rows; leave the file out, or split by text"
            )
        return Columns("sentence", None if excluded else "label", None)
    text, label = config.text_column, config.label_column
    if hub_columns:
        from finsent.data.sources.hubs import LABEL_NAMES, TEXT_NAMES, usual

        text = usual(hub_columns, text, TEXT_NAMES)
        label = usual(hub_columns, label, LABEL_NAMES)
    label = source.label or label
    conditions = {
        name: tuple(word for value in values for word in spellings(value))
        for name, values in source.where.items()
    }
    return Columns(
        text=source.text or text,
        label=None if excluded else label,
        unit=None if excluded else unit,
        where=tuple(conditions.items()),
    )


def present_columns(
    columns: Columns,
    there: list[str] | None,
    format: Format,
    place: Place,
    source: SourceConfig,
    where: str,
) -> Columns:
    """Return the columns with those that the path gives, once all are known to be there.

    Args:
        there: the names of the file's columns; None: its format has none.

    Raises:
        InputError: a column is in neither the file nor its path, or in the file twice.
    """
    given = partitions(place)
    if format == "text":
        if columns.label is not None and columns.label not in given:
            raise InputError(
                f"{where} is text without labels; name a file that has a column of them"
            )
        there = [columns.text]
    if there is None:
        return columns
    missing = {name: given[name] for name in columns.names if name in given and name not in there}
    missing.pop(columns.text, None)
    columns = replace(columns, given=tuple(missing.items()))
    unit = "data.split.group_by or data.split.time.column"
    fields: list[tuple[str | None, str, str]] = [
        (columns.text, "text" if source.text else "data.text_column", "text for this source"),
        (columns.label, "label" if source.label else "data.label_column", "label for this source"),
        (columns.unit, unit, unit),
        *((name, "where", "where for this source") for name, _ in columns.where),
    ]
    for wanted, field, remedy in fields:
        if wanted is not None and wanted not in missing:
            _check_column(wanted, field, remedy, there, format, where)
    if columns.text == columns.label:
        raise InputError(
            f"{where}: text and label are both the column {columns.text!r}; name two columns"
        )
    if format in ("csv", "tsv"):
        columns = replace(columns, last=there[-1], all=tuple(there))
    return columns


def _check_column(
    wanted: str, field: str, remedy: str, there: list[str], format: Format, where: str
) -> None:
    shown = ", ".join(map(repr, there))[:300]
    if there.count(wanted) == 1:
        return
    if wanted in there:
        raise InputError(
            f"{field}={wanted!r}: {there.count(wanted)} columns of {where} have this name; "
            f"rename all but one in the file, or set {remedy} to another of {shown}"
        )
    raise InputError(
        f"{field}={wanted!r}: no such column in {where}; its columns are {shown}; "
        f"{heads.column_remedy(wanted, there, format, remedy)}"
    )
