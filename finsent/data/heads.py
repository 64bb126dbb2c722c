"""What a file's name and first bytes say: format, compression, columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.config import Format
from finsent.errors import InputError
from finsent.labels import LABELS

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
KNOWN_NAMES = (
    f"{', '.join(SUFFIXES)} or PhraseBank's Sentences_*Agree.txt, plain or with "
    f"{' or '.join(COMPRESSIONS)}"
)
_PHRASEBANK = re.compile(r"^Sentences_(All|\d+)Agree\.txt$")  # Malo et al. 2014, as published

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}

_HEAD_BYTES = 1 << 20
_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"%PDF": "a PDF",
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"\xd0\xcf\x11\xe0": "an old Office document (e.g. .xls)",
    b"ARROW1": "an Arrow file",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"SQLite f": "an SQLite database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}


def detect(name: str) -> tuple[Format | None, str | None]:
    """Format and compression by a file's name; None where the name does not say."""
    compression = None
    for suffix, kind in COMPRESSIONS.items():
        if name.lower().endswith(suffix):
            name, compression = name[: -len(suffix)], kind
    if _PHRASEBANK.match(name):
        return "phrasebank", compression
    _, dot, suffix = name.rpartition(".")
    return SUFFIXES.get(dot + suffix.lower()), compression


def agreement(name: str) -> float | None:
    """The share of annotators that agreed on a PhraseBank file's rows, at least; by its name."""
    for suffix in COMPRESSIONS:
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    found = _PHRASEBANK.match(name)
    if found is None:
        return None
    return 1.0 if found[1] == "All" else int(found[1]) / 100


def separator(format: Format, delimiter: str | None) -> str:
    """The sign between the fields of a CSV or TSV: the one that is set, or the usual one."""
    return delimiter or ("\t" if format == "tsv" else ",")


def binary_kind(head: bytes) -> str:
    """Return what a file is by its first 8 bytes, where that is no text; else an empty string."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def check_magic(head: bytes, format: Format, compression: str | None, where: str) -> None:
    """Refuse a file that is something else than its name or settings say.

    Args:
        head: its first 8 bytes, as they lie there.
        where: the file, for messages.

    Raises:
        InputError: it is empty or of another kind.
    """
    found = binary_kind(head)
    expected = f"{compression}-compressed" if compression else ""
    if format == "parquet":
        expected = "Parquet"
    if not head:
        raise InputError(f"{where} is empty; it needs labelled rows")
    if found != expected:
        raise InputError(
            f"{where} is {found or 'something else'}, not {_kind(format, compression)}; convert "
            "or rename it, or set the source's format"
        )


def _kind(format: Format, compression: str | None) -> str:
    kind = {
        "jsonl": "JSON Lines",
        "parquet": "Parquet",
        "phrasebank": "PhraseBank text",
        "text": "a text file",
    }.get(format, f"a {format.upper()} file")
    return f"{kind} in {compression}" if compression else kind


def read_columns(
    format: Format, stream: BinaryIO, encoding: str, where: str, delimiter: str | None = None
) -> list[str] | None:
    """The column names at the head of a file; None where the format has none.

    Raises:
        InputError: the head is not what the format says.
    """
    if format == "parquet":
        try:
            return list(pq.read_schema(stream).names)
        except pa.ArrowException as error:
            raise InputError(
                f"{where} is not valid Parquet ({first_line(error)}); mend the file, or set the "
                "source's format"
            ) from None
    # A sign cut in two at the end of the head is no error.
    text = stream.read(_HEAD_BYTES).decode(encoding, errors="ignore").lstrip("\ufeff")
    if not text.strip():
        raise InputError(f"{where} is empty; it needs labelled rows")
    if format == "text":
        return None
    if format == "phrasebank":
        if "@" not in text:
            raise InputError(f"{where} has no `sentence@label` line; set the source's format")
        return None
    if format == "jsonl":
        return _json_columns(text, where)
    try:
        records = csv.reader(
            io.StringIO(text, newline=""), strict=True, delimiter=separator(format, delimiter)
        )
        return next(record for record in records if record)
    except (csv.Error, StopIteration) as error:
        raise InputError(
            f"{where} has no valid {format.upper()} header ({error}); "
            "mend its first line, e.g. an unclosed quote"
        ) from None


def find_separator(head: str, is_text: Callable[[str], bool]) -> str:
    """Return the sign between a CSV's fields: the one that gives its header a column of the text.

    Args:
        head: begins with the header.
        is_text: whether a column's name is one of a text.

    Returns:
        A comma, where no sign or a comma does.
    """
    for sign in sorted(_SEPARATORS, key=lambda sign: sign != ","):
        records = csv.reader(io.StringIO(head, newline=""), delimiter=sign)
        try:
            header = next((record for record in records if record), [])
        except csv.Error:
            continue
        if any(map(is_text, header)):
            return sign
    return ","


def likely_separator(column: str) -> str | None:
    """Return another sign than a comma that seems to separate a header that is one column."""
    return next((sign for sign in _SEPARATORS if sign in column), None)


def _json_columns(text: str, where: str) -> list[str]:
    first = next(line for line in re.split(r"[\r\n]", text) if line.strip())
    try:
        record = json.loads(first)
    except ValueError as error:
        raise InputError(
            f"{where} is not JSON Lines: its first line is not JSON ({error}); write one object "
            "a line, or set the source's format"
        ) from None
    if not isinstance(record, dict):
        raise InputError(
            f"{where} is not JSON Lines: its first line is no object; write one a line"
        )
    return list(record)


def column_remedy(wanted: str, columns: list[str], format: Format, setting: str) -> str:
    """What to do where a column is not there.

    Args:
        wanted: its name.
        columns: what the header has.
        setting: what names the column, for messages.
    """
    near = [name for name in columns if name.strip().casefold() == wanted.strip().casefold()]
    if near:
        return f"did you mean {near[0]!r}? set {setting} to it"
    sign = likely_separator(columns[0])
    if format in ("csv", "tsv") and len(columns) == 1 and sign is not None:
        remedy = f"delimiter: {json.dumps(sign)}" + (" or format: tsv" if sign == "\t" else "")
        return f"it looks separated by {_SEPARATORS[sign]}: set {remedy} for this source"
    remedy = f"set {setting} to one of them"
    if any(name.strip().lower() in LABELS for name in columns):
        remedy += ", or where its first line is a row, put a header above it"
    return remedy


def first_line(error: BaseException) -> str:
    """An error's message in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
