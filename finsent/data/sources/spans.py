"""How many cells a workbook's sheets span: its reader makes all of them, also the empty ones."""

from __future__ import annotations

import re
from typing import IO, BinaryIO
from zipfile import BadZipFile, ZipFile

from finsent.errors import InputError

_MAX_CELLS = 50_000_000
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
# A cell with a value: the reader leaves out those that have only a style.
_CELL = re.compile(
    rb"""<(?:\w+:)?c\s[^<>]*?\br=["']([A-Z]{1,3})([0-9]{1,7})["'][^<>]*(?<!/)>\s*<[^/]"""
)
_CHUNK = 1 << 20
_OVERLAP = 4096  # bytes; a cell's tag is shorter


def check_sheets(stream: BinaryIO, where: str) -> None:
    """Refuse a workbook of Office Open XML with a sheet of too many cells, and rewind the stream.

    Raises:
        InputError: a sheet spans more cells than memory bears.
    """
    try:
        with ZipFile(stream) as archive:
            for name in filter(_SHEET.fullmatch, archive.namelist()):
                with archive.open(name) as sheet:
                    check_span(*_extent(sheet), where)
    except BadZipFile:  # another format, or one that the reader refuses
        pass
    finally:
        stream.seek(0)


def check_span(rows: int, columns: int, where: str) -> None:
    """Refuse a sheet of too many cells.

    Args:
        rows: number of the last row that has a value.
        columns: number of the last column that has a value.

    Raises:
        InputError: there are more than 50 million cells.
    """
    if rows * columns > _MAX_CELLS:
        raise InputError(
            f"{where}: a sheet spans {rows:,} rows of {columns:,} columns, over {_MAX_CELLS:,} "
            "cells; delete the values far from its table, or save the table as CSV"
        )


def _extent(sheet: IO[bytes]) -> tuple[int, int]:
    """The last row and the last column with a value."""
    rows, columns, text = 0, 0, b""
    while chunk := sheet.read(_CHUNK):
        text = text[-_OVERLAP:] + chunk
        cells = _CELL.findall(text)
        rows = max([rows, *(int(row) for _, row in cells)])
        columns = max([columns, *map(_number, {column for column, _ in cells})])
    return rows, columns


def _number(column: bytes) -> int:
    """The number of a column by its letters: 1 is A, 27 is AA."""
    number = 0
    for letter in column:
        number = 26 * number + letter - ord("A") + 1
    return number
