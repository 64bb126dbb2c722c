"""Reader of workbooks (.xlsx, .xls, .ods) by python-calamine."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, TypeAlias
from zipfile import BadZipFile, ZipFile

import pyarrow as pa

from finsent.data.readers.columns import Columns, assemble
from finsent.data.readers.layout import FileLayout
from finsent.errors import InputError, one_line
from finsent.extras import missing_extra

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

_BLOCK_ROWS = 100_000
_MAX_CELLS = 50_000_000  # the reader makes all cells that a sheet spans, also the empty ones
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
# A cell with a value: the reader leaves out those that have only a style.
_CELL = re.compile(
    rb"""<(?:\w+:)?c\s[^<>]*?\br=["']([A-Z]{1,3})([0-9]{1,7})["'][^<>]*(?<!/)>\s*<[^/]"""
)
_CHUNK_BYTES = 1 << 20
_OVERLAP_BYTES = 4096  # a cell's tag is shorter

_Cell: TypeAlias = (
    str | float | bool | datetime.datetime | datetime.date | datetime.time | datetime.timedelta
)


class _Row(NamedTuple):
    number: int  # as the sheet numbers it
    cells: list[_Cell]


def read_workbook(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield the rows of a workbook's sheet, numbered as the sheet numbers them.

    Raises:
        InputError: the file is not a workbook, or its sheet is not known.
    """
    rows = _sheet_rows(stream, layout, columns.keeps_blank)
    if not rows:
        return
    names = _names(rows[0], layout.has_header)
    rows = rows[1:] if layout.has_header else rows
    positions = {name: names.index(name) for name in columns.all_stored}
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        values = {
            name: pa.array([_as_text(row.cells[position]) for row in block], pa.string())
            for name, position in positions.items()
        }
        yield assemble(source, [row.number for row in block], values, columns)


def workbook_names(stream: BinaryIO, layout: FileLayout) -> list[str]:
    """Return the names of a sheet's columns; `1`, `2`, ... where it has no header.

    Raises:
        InputError: the file is not a workbook, its sheet is not known, or the sheet is empty.
    """
    rows = _sheet_rows(stream, layout)
    if not rows:
        raise InputError(f"{layout.where} is empty. It needs labeled rows.")
    return _names(rows[0], layout.has_header)


def _sheet_rows(stream: BinaryIO, layout: FileLayout, keeps_blank: bool = False) -> list[_Row]:
    """Return the rows of the sheet that has rows.

    Args:
        keeps_blank: keep blank rows between others.
    """
    filled = _filled_sheets(stream, layout)
    if len(filled) > 1:
        raise InputError(
            f"{layout.where} has rows in the sheets {', '.join(map(repr, filled))}. Set sheet to "
            "one of them for this source."
        )
    if not filled:
        return []
    [rows] = filled.values()
    if not keeps_blank:
        return rows
    blank: list[_Cell] = [""] * len(rows[0].cells)
    by_number = dict(rows)
    numbers = range(rows[0].number, rows[-1].number + 1)
    return [_Row(number, by_number.get(number, blank)) for number in numbers]


def _filled_sheets(stream: BinaryIO, layout: FileLayout) -> dict[str, list[_Row]]:
    """Return the rows of each sheet that has rows and that the settings do not exclude."""
    where, sheet = layout.where, layout.sheet
    try:
        # An optional package.
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise missing_extra("python_calamine", where, "save the sheet as CSV") from None
    try:
        _check_sheets(stream, where)
        book = CalamineWorkbook.from_filelike(stream)
        names = [name for name in book.sheet_names if sheet in (None, name)]
        rows = {name: _filled_rows(book.get_sheet_by_name(name), where) for name in names}
    except CalamineError as error:
        raise InputError(
            f"{where} is not a readable workbook ({one_line(error)}). Save it again without "
            "a password, or as CSV."
        ) from None
    if not names:
        raise InputError(
            f"{where} has no sheet {sheet!r}. Set sheet to one of "
            f"{', '.join(map(repr, book.sheet_names))}."
        )
    return {name: sheet_rows for name, sheet_rows in rows.items() if sheet_rows}


def _filled_rows(sheet: CalamineSheet, where: str) -> list[_Row]:
    last_row, last_column = sheet.end or (0, 0)
    _check_span(last_row + 1, last_column + 1, where)  # rows begin at A1, wherever the table does
    rows = enumerate(sheet.to_python(skip_empty_area=False), start=1)
    return [_Row(number, cells) for number, cells in rows if any(cell != "" for cell in cells)]


def _names(first_row: _Row, has_header: bool) -> list[str]:
    if not has_header:
        return [str(position) for position in range(1, len(first_row.cells) + 1)]
    return [_as_text(cell) or "" for cell in first_row.cells]


def _as_text(cell: _Cell) -> str | None:
    """Return a cell as the sheet shows it: integers without a point, times in ISO format."""
    if cell == "":
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell)


# --- size -----------------------------------------------------------------------------------------


def _check_sheets(stream: BinaryIO, where: str) -> None:
    """Refuse an .xlsx workbook with a sheet of too many cells, and rewind the stream.

    Raises:
        InputError: a sheet spans more than 50 million cells.
    """
    try:
        with ZipFile(stream) as archive:
            for name in filter(_SHEET.fullmatch, archive.namelist()):
                with archive.open(name) as sheet:
                    _check_span(*_extent(sheet), where)
    except BadZipFile:  # another format, or a file that the reader refuses
        pass
    finally:
        stream.seek(0)


def _check_span(rows: int, columns: int, where: str) -> None:
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
            "cells. Delete the values far from its table, or save the table as CSV."
        )


def _extent(sheet: IO[bytes]) -> tuple[int, int]:
    """Return the numbers of the last row and the last column with a value."""
    rows, columns, text = 0, 0, b""
    while chunk := sheet.read(_CHUNK_BYTES):
        text = text[-_OVERLAP_BYTES:] + chunk
        cells = _CELL.findall(text)
        rows = max([rows, *(int(row) for _, row in cells)])
        columns = max([columns, *map(_column_number, {column for column, _ in cells})])
    return rows, columns


def _column_number(column: bytes) -> int:
    """Return the number of a column by its letters: 1 for A, 27 for AA."""
    number = 0
    for letter in column:
        number = 26 * number + letter - ord("A") + 1
    return number
