"""Readers of files whose lines are records: plain text and Financial PhraseBank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from finsent.data.readers.columns import Columns, assemble
from finsent.data.readers.layout import FileLayout
from finsent.data.readers.lines import read_head, read_lines
from finsent.errors import InputError


class _Line(NamedTuple):
    text: str
    label: str | None = None
    fault: str | None = None


def check_text(stream: BinaryIO, layout: FileLayout) -> None:
    """Refuse an empty text file; its one column has no name in the file.

    Raises:
        InputError: the file is empty.
    """
    read_head(stream, layout)


def check_phrasebank(stream: BinaryIO, layout: FileLayout) -> None:
    """Refuse a file that is not PhraseBank's; its columns have no names in the file.

    Raises:
        InputError: the file is empty, or no line is `sentence@label`.
    """
    if "@" not in read_head(stream, layout):
        raise InputError(f"{layout.where} has no `sentence@label` line. Set the source's format.")


def read_text(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield each line as a text; blank lines only where `columns.keeps_blank` is set.

    Raises:
        InputError: a line is too long.
    """
    return _read(stream, layout, columns, source, _Line)


def read_phrasebank(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield the sentences and labels of lines `sentence@label`, without blank lines.

    Raises:
        InputError: a line is too long.
    """
    return _read(stream, layout, columns, source, _parse_phrasebank)


def _parse_phrasebank(line: str) -> _Line:
    text, at, label = line.rpartition("@")
    if not at:
        return _Line(line, fault="malformed_row: no @ before the label")
    return _Line(text, label)


def _read(
    stream: BinaryIO,
    layout: FileLayout,
    columns: Columns,
    source: int,
    parse: Callable[[str], _Line],
) -> Iterator[pa.Table]:
    keeps_blank = columns.keeps_blank and layout.format == "text"
    line_count = 0
    for block in read_lines(stream, layout):
        numbered = [
            (number, line.lstrip("\ufeff").rstrip("\n"))
            for number, line in enumerate(block, start=line_count + 1)
        ]
        line_count += len(block)
        records = [(n, *parse(line)) for n, line in numbered if keeps_blank or line.strip()]
        if not records:
            continue
        numbers, *cells = zip(*records, strict=True)
        texts, labels, faults = (pa.array(column, pa.string()) for column in cells)
        values = {columns.text: texts}
        if columns.label is not None:
            values[columns.label] = labels
        yield assemble(source, numbers, values, columns, faults)
