"""What a file's name and first bytes say: format, compression, columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.config import Format
from finsent.data.sources.csv_exact import UNCLOSED, OpenQuoteError, first_record
from finsent.data.sources.dialect import Dialect
from finsent.data.sources.json_records import items, keys_of, parse_line
from finsent.errors import InputError, one_line
from finsent.labels import LABELS

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".feather": "arrow",
    ".arrow": "arrow",
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"), "excel"),
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2", ".zip": "zip"}
TYPED: tuple[Format, ...] = ("parquet", "arrow", "excel")  # they know their texts' encoding
KNOWN_NAMES = (
    f"{', '.join(SUFFIXES)} or PhraseBank's Sentences_*Agree.txt, plain or with "
    f"{' or '.join(COMPRESSIONS)}"
)
_PHRASEBANK = re.compile(r"^Sentences_(All|\d+)Agree\.txt$")  # Malo et al. 2014, as published

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}

_HEAD_BYTES = 1 << 20
_HEAD_RECORDS = 10_000
_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"%PDF": "a PDF",
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"BZh": "bz2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"ARROW1": "an Arrow file",
    b"\xd0\xcf\x11\xe0": "an old Office document (e.g. .xls)",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"SQLite f": "an SQLite database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
_EXPECTED = {  # formats and compressions whose files begin with a mark
    "parquet": ("Parquet",),
    "arrow": ("an Arrow file", ""),  # a stream has no mark
    "excel": ("a zip archive or an Excel workbook", "an old Office document (e.g. .xls)"),
    "zip": ("a zip archive or an Excel workbook",),
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


def separator(format: Format) -> str:
    """Return the usual sign between the fields of a CSV or TSV."""
    return "\t" if format == "tsv" else ","


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
    packed = (f"{compression}-compressed",) if compression else ("",)
    expected = _EXPECTED.get(compression or format, packed)
    if not head:
        raise InputError(f"{where} is empty; it needs labeled rows")
    if found not in expected:
        raise InputError(
            f"{where} is {found or 'something else'}, not {_kind(format, compression)}; convert "
            "or rename it, or set the source's format"
        )


def _kind(format: Format, compression: str | None) -> str:
    kind = {
        "jsonl": "JSON Lines",
        "json": "JSON",
        "arrow": "an Arrow or Feather file",
        "excel": "a workbook",
        "parquet": "Parquet",
        "phrasebank": "PhraseBank text",
        "text": "a text file",
    }.get(format, f"a {format.upper()} file")
    return f"{kind} in {compression}" if compression else kind


def read_columns(
    format: Format,
    stream: BinaryIO,
    encoding: str,
    where: str,
    dialect: Dialect | None = None,
) -> list[str] | None:
    """The column names at the head of a file; None where the format has none.

    Args:
        dialect: signs of a CSV; None: the format's usual ones.

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
        raise InputError(f"{where} is empty; it needs labeled rows")
    if format == "text":
        return None
    if format == "phrasebank":
        if "@" not in text:
            raise InputError(f"{where} has no `sentence@label` line; set the source's format")
        return None
    if format == "jsonl":
        return _json_columns(text, where)
    if format == "json":
        return _array_columns(text, where)
    if dialect is not None and not dialect.is_plain:
        return header_of(text, dialect, where)
    sign = separator(format) if dialect is None else dialect.delimiter
    try:
        records = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=sign)
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


def is_json(head: str) -> bool:
    """Return whether a text begins with a JSON object, an array of them, or a line of either."""
    first = next((line.strip() for line in re.split(r"[\r\n]", head) if line.strip()), "")
    if not first.startswith(("{", "[")):
        return False
    if first in ("{", "["):
        return True
    try:
        return isinstance(json.loads(first), dict | list)
    except (ValueError, RecursionError):
        pass
    try:
        return isinstance(next(items(_stream(head), "utf-8", ""))[0], dict | list)
    except (InputError, StopIteration):
        return False


def _json_columns(text: str, where: str) -> list[str]:
    lines = [line for line in re.split(r"[\r\n]", text) if line.strip()]
    first = parse_line(lines[0])
    if not isinstance(first, dict):
        try:
            several = next(items(_stream(text), "utf-8", where))[0]
        except (InputError, StopIteration):
            several = None
        if isinstance(several, dict):
            raise InputError(
                f"{where} is not JSON Lines: it is an array, no object a line, or its objects "
                "span lines; set format: json for this source"
            )
        kind = "no object" if first.endswith("object") else "not JSON"
        raise InputError(
            f"{where} is not JSON Lines: its first line is {kind}; write one object a line, or set "
            "the source's format"
        )
    records = map(parse_line, lines[:_HEAD_RECORDS])
    return keys_of([record for record in records if isinstance(record, dict)])


def _array_columns(text: str, where: str) -> list[str]:
    """The keys of a JSON file's first records; its head may end within one."""
    records = []
    try:
        for item, _ in islice(items(_stream(text), "utf-8", where), _HEAD_RECORDS):
            records.append(item)
    except InputError:
        if not records:
            raise
    objects = [record for record in records if isinstance(record, dict)]
    if not objects:
        raise InputError(
            f"{where} holds no JSON objects; write an array of objects with a text and a label"
        )
    if len(records) == 1 and all(isinstance(value, dict | list) for value in objects[0].values()):
        raise InputError(
            f"{where} is one object with the keys {', '.join(map(repr, objects[0]))[:200]}, not "
            "an array of records; write the records alone, in pandas with "
            "orient='records', or where it is no data, name the other files by a glob"
        )
    return keys_of(objects)


def _stream(text: str) -> BinaryIO:
    return io.BytesIO(text.encode())


def header_of(text: str, dialect: Dialect, where: str) -> list[str]:
    """Return the names of a CSV's columns by its first record, or their numbers.

    Raises:
        InputError: a quote opens in the first record and is not closed.
    """
    try:
        fields = first_record(text, dialect)
    except OpenQuoteError:
        raise InputError(UNCLOSED.format(where=where, number=1)) from None
    return fields if dialect.has_header else [str(n) for n in range(1, len(fields) + 1)]


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
    places = [place for place, name in enumerate(columns, 1) if name.strip().lower() in LABELS]
    if places:
        remedy += ", or where its first line is a row, put a header above it"
    if places and format in ("csv", "tsv", "excel"):
        others = {len(name): place for place, name in enumerate(columns, 1) if place != places[0]}
        text = f"text: {others[max(others)]}, " if others else ""
        remedy += f" or set header: none, {text}label: {places[0]} for this source"
    return remedy


def first_line(error: BaseException) -> str:
    """An error's message in one line."""
    return one_line(error)
