"""JSON Lines, JSON arrays and objects one after another: records, their keys and their values."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa

from finsent.data.sources.columns import BLOCK_BYTES, MAX_CHARACTERS, Columns, assemble
from finsent.data.sources.lines import read_lines
from finsent.errors import InputError


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


# `NaN` is no JSON, but Python and pandas write it for a value that is missing. Nor can JSON spell
# what 1e400 is in memory: infinity.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)
_SPACE = re.compile(r"[ \t\r\n]*")
_CHUNK = 1 << 20  # characters
_BLOCK_ROWS = 20_000
_DEPTH = 8  # of nested keys that are listed
_NO_VALUE = "malformed_row: a list or object where a text or number belongs"
_SEVERAL = "malformed_row: several labels"
_ANSWERS = ("choices", "labels")  # Label Studio's key of what an annotator chose

_ANSWER, _REFUSED = "answer", ("reject", "ignore")  # Prodigy's, of an annotator who refused


class SeveralLabelsError(ValueError):
    """A row has more than one label."""


def single_label(value: Any) -> Any:
    """Return the label of a list of one (doccano, Prodigy) or of Label Studio's object.

    Raises:
        SeveralLabelsError: there are several labels.
    """
    if isinstance(value, dict) and len(value) == 1 and (key := next(iter(value))) in _ANSWERS:
        return single_label(value[key])
    if not isinstance(value, list):
        return value
    distinct = [item for place, item in enumerate(value) if item not in value[:place]]
    if len(distinct) > 1:
        raise SeveralLabelsError
    return single_label(distinct[0]) if distinct else None


def pick(record: dict[str, Any], name: str) -> Any:
    """Return the value of a key, or of nested ones: `data.text`, `annotations.0.label`."""
    if name in record or "." not in name:
        return record.get(name)
    value: Any = record
    for part in name.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def keys_of(records: list[dict[str, Any]]) -> list[str]:
    """Return the keys that any of the records has; nested ones with dots behind the others."""
    top, nested = dict[str, None](), dict[str, None]()

    def walk(value: Any, prefix: str, depth: int) -> None:
        if depth > _DEPTH:
            return
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value[:1]):
            name = f"{prefix}{key}"
            (nested if prefix else top).setdefault(name)
            if isinstance(inner, dict | list):
                walk(inner, f"{name}.", depth + 1)

    for record in records:
        walk(record, "", 0)
    return [*top, *(name for name in nested if name not in top)]


def _values(record: dict[str, Any], columns: Columns) -> tuple[dict[str, str | None], str | None]:
    """The values of the columns that are read, as texts, or why there are none."""
    if columns.label and record.get(_ANSWER) in _REFUSED and _ANSWER not in columns.names:
        return {}, f"refused_label: {_ANSWER} is {record[_ANSWER]}"
    values: dict[str, str | None] = {}
    for name in columns.stored:
        value = pick(record, name)
        if name == columns.label or name not in (columns.text, columns.unit):
            try:
                value = single_label(value)
            except SeveralLabelsError:
                return {}, _SEVERAL
        if isinstance(value, list | dict):
            return {}, _NO_VALUE
        text = value if value is None or isinstance(value, str) else json.dumps(value)
        values[name] = encodable(text)
    return values, None


def encodable(text: str | None) -> str | None:
    """Return a text with U+FFFD for half a surrogate pair: JSON can spell it, no encoding can."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _table(source: int, block: list[tuple[int, str, Any]], columns: Columns) -> pa.Table:
    """A block of records by number, text (empty: the value's) and value; a string is a fault."""
    numbers, faults = [number for number, _, _ in block], []
    lists: dict[str, list[str | None]] = {name: [] for name in columns.stored}
    carried: dict[str, list[str | None]] = {name: [] for name in columns.carried_stored}
    for _, written, record in block:
        values: dict[str, str | None] = {}
        fault: str | None = record if isinstance(record, str) else None
        if fault is None:
            values, fault = _values(record, columns)
        for name, cells in lists.items():
            cells.append(values.get(name))
        for name, cells in carried.items():
            cells.append(_as_json(record, name))
        if fault is not None:
            shown = written or json.dumps(record, ensure_ascii=False)
            lists[columns.text][-1] = encodable(shown)
        faults.append(fault)
    arrays, further = (
        {name: pa.array(cells, pa.string()) for name, cells in found.items()}
        for found in (lists, carried)
    )
    return assemble(source, numbers, arrays, columns, pa.array(faults, pa.string()), further)


def _as_json(record: Any, name: str) -> str | None:
    """A value as JSON, in ASCII, so that half a surrogate pair stays what the file says."""
    value = pick(record, name) if isinstance(record, dict) else None
    return None if value is None else json.dumps(value)


def late_keys(
    format: str, stream: BinaryIO, encoding: str, where: str, names: list[str]
) -> list[str]:
    """Return which keys any record of a file has, however late.

    Raises:
        InputError: the file is not JSON, or it is cut off.
    """
    missing = set(names)
    for record in _objects(format, stream, encoding, where):
        missing -= {name for name in missing if pick(record, name) is not None}
        if not missing:
            break
    return [name for name in names if name not in missing]


def top_keys(format: str, stream: BinaryIO, encoding: str, where: str) -> list[str]:
    """Return the keys of all records of a file, in the order in which they come up.

    Raises:
        InputError: the file is not JSON, or it is cut off.
    """
    keys: dict[str, None] = {}
    for record in _objects(format, stream, encoding, where):
        keys |= dict.fromkeys(record)
    return list(keys)


def _objects(format: str, stream: BinaryIO, encoding: str, where: str) -> Iterator[dict[str, Any]]:
    records: Iterator[Any]
    if format == "json":
        records = (item for item, _ in items(stream, encoding, where))
    else:
        lines = chain.from_iterable(read_lines(stream, encoding, where))
        records = (parse_line(line.lstrip("\ufeff")) for line in lines)
    return (record for record in records if isinstance(record, dict))


# --- JSON Lines -----------------------------------------------------------------------------------


def parse_line(line: str) -> Any:
    """Return a line's object, or a fault as a string."""
    try:
        record = _DECODER.decode(line)
    except (ValueError, RecursionError):
        return "malformed_row: not JSON"
    return record if isinstance(record, dict) else "malformed_row: no JSON object"


def read_json_lines(
    stream: BinaryIO, source: int, encoding: str, columns: Columns, where: str
) -> Iterator[pa.Table]:
    """Return the records of lines, each line's number being its record's.

    Raises:
        InputError: a line is too long.
    """
    number = 0
    for block in read_lines(stream, encoding, where):
        stripped = [line.lstrip("\ufeff").rstrip("\n") for line in block]
        records = [
            (number + offset, line, parse_line(line))
            for offset, line in enumerate(stripped, start=1)
            if line.strip()
        ]
        number += len(block)
        if records:
            yield _table(source, records, columns)


# --- JSON -----------------------------------------------------------------------------------------


def read_json(
    stream: BinaryIO, source: int, encoding: str, columns: Columns, where: str
) -> Iterator[pa.Table]:
    """Return the objects of an array, or objects that follow each other; numbered from 1.

    Raises:
        InputError: the file is not JSON, or it is cut off.
    """
    block: list[tuple[int, str, Any]] = []
    size = 0
    for number, (item, length) in enumerate(items(stream, encoding, where), start=1):
        if isinstance(item, dict):
            block.append((number, "", item))
        else:
            written = json.dumps(item, ensure_ascii=False)
            block.append((number, written, "malformed_row: no JSON object"))
        size += length
        if len(block) == _BLOCK_ROWS or size > BLOCK_BYTES // 2:
            yield _table(source, block, columns)
            block, size = [], 0
    if block:
        yield _table(source, block, columns)


def items(stream: BinaryIO, encoding: str, where: str) -> Iterator[tuple[Any, int]]:
    """Return the values of a JSON file, each with its length in characters.

    Raises:
        InputError: the file is not JSON, or it is cut off.
    """
    with io.TextIOWrapper(stream, encoding=encoding, newline="") as lines:
        text, place, is_final, number = lines.read(_CHUNK).lstrip("\ufeff"), 0, False, 0
        place = _skip(text, 0)
        in_array = text.startswith("[", place)
        place += in_array
        while True:
            place, value, problem = _skip(text, place), None, ""
            if place < len(text) and in_array and text[place] == "]":
                if _skip(text, place + 1) < len(text) or lines.read(_CHUNK).strip():
                    raise InputError(
                        f"{where} is not valid JSON: text follows the array; mend the file"
                    )
                return
            end = place
            if place < len(text):
                try:
                    value, end = _DECODER.raw_decode(text, place)
                except (ValueError, RecursionError) as error:
                    problem = str(error)
            behind = _skip(text, end)
            if (problem or behind >= len(text)) and not is_final:
                if len(text) - place > MAX_CHARACTERS:
                    raise InputError(_invalid(where, number, problem or "too long"))
                more = lines.read(max(_CHUNK, len(text) - place))
                text, place, is_final = text[place:] + more, 0, not more
                continue
            if problem:
                raise InputError(_invalid(where, number, problem))
            if place >= len(text):
                if in_array:
                    raise InputError(_invalid(where, number, "the file is cut off"))
                return
            number += 1
            yield value, end - place
            place = behind
            if in_array and text.startswith(",", place):
                place += 1
            elif in_array and not text.startswith("]", place):
                raise InputError(_invalid(where, number, "a comma is missing, or it is cut off"))


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _invalid(where: str, number: int, problem: str) -> str:
    return f"{where} is not valid JSON behind record {number} ({problem}); mend the file"
