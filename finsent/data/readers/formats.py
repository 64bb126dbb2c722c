"""The table of file formats: how files of each are recognized and read.

To add a format:

1. add its name to `Format` in `finsent.data.config`;
2. write a module with a reader of column names and a reader of rows, as `text_files` has them;
3. add an entry to `FORMATS`.

Other modules ask `FORMATS` what a format can do. Only `sources.column_selection` and
`sources.format_detection` name formats themselves: text and PhraseBank, whose files have no named
columns.

A reader never loses a record: an unusable one comes with the reason in the column `fault`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from finsent.data.config import Format
from finsent.data.readers import arrow_tables, signatures, workbooks
from finsent.data.readers.columns import Columns
from finsent.data.readers.csv_arrow import read_csv
from finsent.data.readers.csv_header import read_csv_names
from finsent.data.readers.json_header import read_json_line_names, read_json_names
from finsent.data.readers.json_records import read_json, read_json_lines, read_objects
from finsent.data.readers.json_values import JsonObject
from finsent.data.readers.layout import FileLayout
from finsent.data.readers.lines import count_lines
from finsent.data.readers.text_files import (
    check_phrasebank,
    check_text,
    read_phrasebank,
    read_text,
)

NamesReader = Callable[[BinaryIO, FileLayout], list[str] | None]
RowsReader = Callable[[BinaryIO, FileLayout, Columns, int], Iterator[pa.Table]]


@dataclass(frozen=True)
class FileFormat:
    """Detection and readers of one file format. Readers get decompressed bytes."""

    description: str  # for messages
    read_names: NamesReader  # of the columns; None: the format has no names
    read_rows: RowsReader  # tables of `Columns.schema`, in order; the last argument is `source`
    suffixes: tuple[str, ...] = ()  # of file names, in lower case
    signatures: tuple[str, ...] = (signatures.NO_SIGNATURE,)  # kinds of first bytes
    settings: frozenset[str] = frozenset()  # of a source, those that only some formats use
    is_text: bool = True  # False: the format itself states the encoding of its texts
    is_csv: bool = False  # quotes are audited
    has_columns: bool = True
    has_blank_rows: bool = False  # a blank row may be a record
    count_rows: Callable[[BinaryIO], int] | None = None  # None: all rows are read
    read_schema: Callable[[BinaryIO, FileLayout], pa.Schema] | None = None  # of typed columns
    read_objects: Callable[[BinaryIO, FileLayout], Iterator[JsonObject]] | None = None  # of JSON


_CSV_SETTINGS = frozenset({"delimiter", "quote", "escape", "header"})

FORMATS: dict[Format, FileFormat] = {
    "csv": FileFormat(
        description="a CSV file",
        suffixes=(".csv",),
        settings=_CSV_SETTINGS,
        is_csv=True,
        read_names=read_csv_names,
        read_rows=read_csv,
        count_rows=count_lines,
    ),
    "tsv": FileFormat(
        description="a TSV file",
        suffixes=(".tsv",),
        settings=_CSV_SETTINGS,
        is_csv=True,
        read_names=read_csv_names,
        read_rows=read_csv,
        count_rows=count_lines,
    ),
    "jsonl": FileFormat(
        description="JSON Lines",
        suffixes=(".jsonl", ".ndjson"),
        read_names=read_json_line_names,
        read_rows=read_json_lines,
        read_objects=read_objects,
        count_rows=count_lines,
    ),
    "json": FileFormat(
        description="JSON",
        suffixes=(".json",),
        read_names=read_json_names,
        read_rows=read_json,
        read_objects=read_objects,
    ),
    "parquet": FileFormat(
        description="Parquet",
        suffixes=(".parquet",),
        signatures=(signatures.PARQUET,),
        is_text=False,
        read_names=arrow_tables.parquet_names,
        read_rows=arrow_tables.read_parquet,
        read_schema=arrow_tables.parquet_schema,
        count_rows=arrow_tables.count_parquet_rows,
    ),
    "arrow": FileFormat(
        description="an Arrow or Feather file",
        suffixes=(".feather", ".arrow"),
        signatures=(signatures.ARROW, signatures.NO_SIGNATURE),
        is_text=False,
        read_names=arrow_tables.arrow_names,
        read_rows=arrow_tables.read_arrow,
        read_schema=arrow_tables.arrow_schema,
    ),
    "excel": FileFormat(
        description="a workbook",
        suffixes=(".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"),
        signatures=(signatures.ZIP, signatures.OLD_OFFICE),
        settings=frozenset({"header", "sheet"}),
        is_text=False,
        has_blank_rows=True,
        read_names=workbooks.workbook_names,
        read_rows=workbooks.read_workbook,
    ),
    "phrasebank": FileFormat(  # its files have names of their own, see `format_detection`
        description="PhraseBank text",
        has_columns=False,
        read_names=check_phrasebank,
        read_rows=read_phrasebank,
        count_rows=count_lines,
    ),
    "text": FileFormat(
        description="a text file",
        has_columns=False,
        has_blank_rows=True,
        read_names=check_text,
        read_rows=read_text,
        count_rows=count_lines,
    ),
}


def read_names(stream: BinaryIO, layout: FileLayout) -> list[str] | None:
    """Return the names of a file's columns; None where its format has none.

    Args:
        stream: decompressed bytes.

    Raises:
        InputError: the head of the file is not what the format requires.
    """
    return FORMATS[layout.format].read_names(stream, layout)


def read_rows(
    stream: BinaryIO, layout: FileLayout, columns: Columns, source: int
) -> Iterator[pa.Table]:
    """Yield a file's records in order as tables of `columns.schema`, block by block.

    Where `columns.keeps_cells` is set, the records of a CSV also have the columns of `with_cells`.

    Args:
        stream: decompressed bytes.
        source: value of the column `source`.

    Raises:
        InputError: the file cannot be parsed.
    """
    return FORMATS[layout.format].read_rows(stream, layout, columns, source)
