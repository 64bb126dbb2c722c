"""The header of a CSV: names of its columns, and its delimiter where no setting states one."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import BinaryIO

from finsent.data.readers.csv_dialect import Dialect
from finsent.data.readers.csv_exact import OpenQuoteError, first_record
from finsent.data.readers.layout import FileLayout
from finsent.data.readers.lines import read_head
from finsent.data.readers.messages import UNCLOSED_QUOTE
from finsent.errors import InputError

DELIMITER_NAMES = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def read_csv_names(stream: BinaryIO, layout: FileLayout) -> list[str]:
    """Return the names of a CSV's columns; `1`, `2`, ... where it has no header.

    Raises:
        InputError: the file is empty, or its first record is not valid CSV.
    """
    head = read_head(stream, layout)
    if layout.dialect is not None and not layout.dialect.is_plain:
        return _exact_names(head, layout.dialect, layout.where)
    try:
        records = csv.reader(io.StringIO(head, newline=""), strict=True, delimiter=layout.delimiter)
        return next(record for record in records if record)
    except (csv.Error, StopIteration) as error:
        raise InputError(
            f"{layout.where} has no valid {layout.format.upper()} header ({error}). "
            "Repair its first line, e.g. an unclosed quote."
        ) from None


def _exact_names(head: str, dialect: Dialect, where: str) -> list[str]:
    try:
        fields = first_record(head, dialect)
    except OpenQuoteError:
        raise InputError(UNCLOSED_QUOTE.format(where=where, number=1)) from None
    return fields if dialect.has_header else [str(n) for n in range(1, len(fields) + 1)]


def find_delimiter(head: str, is_text: Callable[[str], bool]) -> str:
    """Return the delimiter that gives the header a column of the text; a comma if none does.

    Args:
        head: begins with the header.
        is_text: whether a column's name is one of a text.
    """
    for delimiter in sorted(DELIMITER_NAMES, key=lambda delimiter: delimiter != ","):
        records = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        try:
            header = next((record for record in records if record), [])
        except csv.Error:
            continue
        if any(map(is_text, header)):
            return delimiter
    return ","


def likely_delimiter(header: str) -> str | None:
    """Return the delimiter that a header of one column seems to contain; None if it has none."""
    return next((delimiter for delimiter in DELIMITER_NAMES if delimiter in header), None)
