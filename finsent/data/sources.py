"""Labelled files: finding them, refusing unusable ones early, and streaming their rows."""

from __future__ import annotations

import codecs
import csv as stdlib_csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from finsent.data.config import SAMPLE, DataConfig
from finsent.errors import InputError
from finsent.files import sha256_file

# Rows longer than a block cannot be parsed; far above any text that is worth classifying.
_BLOCK_BYTES = 16 << 20
_HEAD_BYTES = 1 << 20
_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x1f\x8b": "gzip-compressed",
    b"PAR1": "Parquet",
    b"%PDF": "a PDF",
}

ROWS = pa.schema(
    [
        ("source", pa.int32()),  # position in the list of source files
        ("row", pa.int64()),  # record number in the file; the header is 1
        ("raw_text", pa.string()),
        ("raw_label", pa.string()),
        ("fault", pa.string()),  # why the record could not be parsed, else null
    ]
)


@dataclass(frozen=True)
class SourceFile:
    """One file of a dataset's sources."""

    name: str  # short and unique within the dataset; the same on every machine
    path: str  # absolute
    bytes: int
    sha256: str


def find_sources(config: DataConfig) -> list[SourceFile]:
    """Expand `data.sources` to files, check each one's head, and digest it.

    Raises:
        InputError: a source is missing, empty, binary, in another encoding, or lacks a column.
    """
    paths = list(dict.fromkeys(path for source in config.sources for path in _expand(source)))
    for path in paths:
        _check_head(path, config)
    names = _short_names(paths)
    return [
        SourceFile(name, str(path), path.stat().st_size, sha256_file(path))
        for name, path in zip(names, paths, strict=True)
    ]


def _expand(source: str) -> list[Path]:
    if source == SAMPLE:
        return [Path(str(resources.files("finsent.data.sample") / "sentences.csv"))]
    if "://" in source:
        raise InputError(
            f"data.sources: {source!r} is a URI, but only local CSV files are read; "
            "download it and give its path"
        )
    path = Path(os.path.normpath(Path(source).expanduser().absolute()))
    try:
        return _expand_path(source, path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _expand_path(source: str, path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() == ".csv" and p.is_file())
        if not found:
            raise InputError(
                f"data.sources: {source!r} is a directory without .csv files; "
                "put labelled CSV files there or name another place"
            )
        return found
    if path.is_file():
        return [path]
    try:
        pattern = str(path.relative_to(path.anchor))
        found = sorted(p for p in Path(path.anchor).glob(pattern) if p.is_file())
    except ValueError:  # a pattern that pathlib does not know, e.g. a**
        found = []
    if not found:
        raise InputError(
            f"data.sources: {source!r}: no such file, directory or match (looked for "
            f"{str(path)!r}); check the path, or use {SAMPLE!r} for the corpus in the package"
        )
    return found


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"data.sources: {str(path)!r}: cannot be read ({error.strerror}); "
        "allow it, or name another file"
    )


def _short_names(paths: list[Path]) -> list[str]:
    """The last path parts, as few as keep the names apart."""
    for depth in range(1, max(len(p.parts) for p in paths) + 1):
        names = ["/".join(p.parts[-depth:]) for p in paths]
        if len(set(names)) == len(names):
            break
    return names


def _check_head(path: Path, config: DataConfig) -> list[str]:
    """Refuse a file that cannot be what it should be; returns its column names."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise InputError(
                f"data.sources: {str(path)!r} is {kind}, not a CSV file; convert it to CSV"
            )
    _check_wide(path, head, config)
    try:
        text = codecs.getincrementaldecoder(config.encoding)().decode(head).lstrip("\ufeff")
    except UnicodeError as error:
        raise _wrong_encoding(path, config, str(error)) from None
    if not text.strip():
        raise InputError(f"data.sources: {str(path)!r} is empty; it needs a header and rows")
    columns = _columns(path, text)
    for field in ("text_column", "label_column"):
        wanted = getattr(config, field)
        if columns.count(wanted) != 1:
            problem = "no such column" if wanted not in columns else "stands more than once"
            raise InputError(
                f"data.{field}={wanted!r}: {problem} in {str(path)!r}; its columns are "
                f"{', '.join(map(repr, columns))[:300]}; set data.{field} to one of them"
            )
    return columns


def _check_wide(path: Path, head: bytes, config: DataConfig) -> None:
    """UTF-16 and UTF-32 are full of NUL bytes, and so is what is not text at all."""
    for boms, name in (
        ((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),  # first: it begins like UTF-16's
        ((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
    ):
        if head.startswith(boms):
            if not config.encoding.startswith(name):
                raise InputError(
                    f"data.sources: {str(path)!r} is {name.upper()} text, but "
                    f"data.encoding={config.encoding!r}; set data.encoding={name}"
                )
            return
    if b"\0" in head and not config.encoding.startswith(("utf-16", "utf-32")):
        raise InputError(f"data.sources: {str(path)!r} is a binary file (NUL bytes); give a CSV")


def _columns(path: Path, text: str) -> list[str]:
    try:
        records = stdlib_csv.reader(io.StringIO(text, newline=""), strict=True)
        return next(record for record in records if record)
    except (stdlib_csv.Error, StopIteration) as error:
        raise InputError(
            f"data.sources: {str(path)!r} has no valid CSV header ({error}); "
            "mend its first line, e.g. an unclosed quote"
        ) from None


def _wrong_encoding(path: Path, config: DataConfig, problem: str) -> InputError:
    return InputError(
        f"data.encoding={config.encoding!r}: {str(path)!r} is not in it ({problem}); "
        "set data.encoding to the file's own, e.g. cp1252"
    )


def read_rows(path: str, source: int, config: DataConfig) -> Iterator[pa.Table]:
    """Stream one CSV file as tables of schema `ROWS`, block by block.

    A record with a wrong number of fields is not lost: it comes with its line as `raw_text` and
    the reason in `fault`.

    Raises:
        InputError: the file cannot be decoded or parsed.
    """
    columns = _check_head(Path(path), config)
    broken: list[tuple[int, str, str]] = []

    def keep_broken(row: Any) -> str:
        fault = f"malformed_row: {row.actual_columns} fields, not {row.expected_columns}"
        broken.append((row.number, row.text, fault))
        return "skip"

    next_row, last = 2, ""  # the header is record 1
    try:
        for batch in _open(path, columns, config, keep_broken):
            taken = {number for number, _, _ in broken}
            numbers = np.fromiter(_free_numbers(next_row, len(batch), taken), np.int64, len(batch))
            next_row = int(numbers[-1]) + 1 if len(batch) else next_row
            last = batch.column(columns[-1])[-1].as_py() if len(batch) else last
            yield _rows(source, numbers, batch[config.text_column], batch[config.label_column])
    except UnicodeError as error:
        raise _wrong_encoding(Path(path), config, str(error)) from None
    except pa.ArrowInvalid as error:
        problem = str(error).splitlines()[0]
        if "Empty CSV" in problem:  # a header and not even the end of its line
            return
        raise InputError(
            f"data.sources: {path!r} is not valid CSV near record {next_row} ({problem}); "
            "mend the file, e.g. an unclosed quote"
        ) from None
    _check_quotes(path, broken, next_row - 1, last, config)
    if broken:
        rows, texts, faults = zip(*broken, strict=True)
        nulls = pa.nulls(len(broken), pa.string())
        yield _rows(source, rows, pa.array(texts, pa.string()), nulls, pa.array(faults))


def _open(
    path: str, columns: list[str], config: DataConfig, keep_broken: Callable[[Any], str]
) -> csv.CSVStreamingReader:
    wanted = list(dict.fromkeys([config.text_column, config.label_column, columns[-1]]))
    return csv.open_csv(
        path,
        read_options=csv.ReadOptions(
            use_threads=False,  # only then do broken rows carry their numbers
            block_size=_BLOCK_BYTES,
            # Arrow itself would find wrong UTF-8 only after parsing; a codec finds it at once.
            encoding="utf-8-sig" if config.encoding == "utf-8" else config.encoding,
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep_broken),
        convert_options=csv.ConvertOptions(
            include_columns=wanted,
            column_types={name: pa.string() for name in wanted},
            strings_can_be_null=False,
        ),
    )


def _rows(
    source: int, numbers: Any, texts: pa.Array, labels: pa.Array, faults: pa.Array | None = None
) -> pa.Table:
    count = len(texts)
    faults = pa.nulls(count, pa.string()) if faults is None else faults
    sources = pa.repeat(pa.scalar(source, pa.int32()), count)
    return pa.table([sources, pa.array(numbers, pa.int64()), texts, labels, faults], schema=ROWS)


def _check_quotes(
    path: str, broken: list[tuple[int, str, str]], last_row: int, last: str, config: DataConfig
) -> None:
    """An unclosed quote makes one record of the rest of the file: never let that pass as one row.

    Args:
        last: the last field of the last well-formed record, number `last_row`.
    """
    opened = [number for number, text, _ in broken if text.count('"') % 2 and "\n" in text]
    if not opened and "\n" in last:
        tail = Path(path).read_bytes()[-64:].decode(config.encoding, errors="replace")
        opened = [] if tail.rstrip().endswith('"') else [last_row]
    if opened:
        raise InputError(
            f"data.sources: {path!r}: a quote that opens in record {opened[0]} is not closed; "
            "close it, or double it where it belongs to the text"
        )


def _free_numbers(start: int, count: int, taken: set[int]) -> Iterator[int]:
    number = start
    while count:
        if number not in taken:
            yield number
            count -= 1
        number += 1
