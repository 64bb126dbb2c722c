"""Clean raw rows: normalize texts, map labels to ids, add keys, and reject bad rows."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.config import DataConfig, SourceConfig, TimeSplitConfig, iso_time
from finsent.data.readers.json_values import single_label
from finsent.data.readers.utf8_repair import LOST
from finsent.labels import LABEL2ID, LABELS
from finsent.normalize import key64, normalize, text_keys
from finsent.spellings import spellings

LEFT_OUT, DROPPED = "left_out", "dropped_label"  # reasons that a source's settings request
_MAX_FAULT_CHARS = 40

GOOD = pa.schema(
    [
        ("key", pa.binary(16)),  # digest of the text: equal texts have equal keys
        ("source", pa.int32()),
        ("row", pa.int64()),
        ("text", pa.string()),
        ("raw_text", pa.string()),  # null where it equals `text`
        ("label", pa.int8()),  # position in LABELS; null in a source that must stay unseen
        ("unit", pa.uint64()),  # decides the split
        ("unit_text", pa.string()),  # the unit as in the file; null where the text decides
    ]
)
REJECTED = pa.schema(
    [
        ("source", pa.int32()),
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("raw_text", pa.string()),
        ("raw_label", pa.string()),
    ]
)


class Cleaned(NamedTuple):
    """A block's good and rejected rows, and how many texts were repaired."""

    good: pa.Table  # schema GOOD
    rejected: pa.Table  # schema REJECTED
    mojibake: int  # rows
    entities: int  # rows
    damaged: int  # rows with a lost character, U+FFFD


def clean(rows: pa.Table, source: SourceConfig, excluded: bool, config: DataConfig) -> Cleaned:
    """Normalize texts, map labels to ids, and separate good rows from rejected ones.

    Args:
        rows: of one source; schema `finsent.data.readers.columns.ROWS`.
        source: settings of the source.
        excluded: whether the source must stay unseen. Then its texts need no label, and may have
            any length.
    """
    normalized = normalize(rows["raw_text"])
    text = normalized.text
    label = pa.nulls(len(rows), pa.int8()) if excluded else label_ids(rows["raw_label"], source)
    keys = text_keys(text)
    unit = pa.array(key64(keys)) if excluded else _units(rows["unit"], keys, config)
    is_damaged = pc.fill_null(pc.match_substring(rows["raw_text"], LOST), False)
    tests_and_reasons = [  # the first test that is true gives the reason
        (pc.is_valid(rows["fault"]), rows["fault"]),
        (pc.and_(not excluded, _is_dropped(rows["raw_label"], source)), pa.scalar(DROPPED)),
        (pc.equal(text, ""), pa.scalar("missing_text")),
        (
            pc.and_(not excluded and source.bad_bytes == "reject", is_damaged),
            pa.scalar("damaged_text"),
        ),
        (
            pc.and_(not excluded, pc.greater(pc.utf8_length(text), config.max_chars)),
            pa.scalar("text_too_long"),
        ),
        (pc.and_(not excluded, _is_blank(rows["raw_label"])), pa.scalar("missing_label")),
        (pc.and_(not excluded, pc.is_null(label)), pa.scalar("unknown_label")),
        (pc.is_null(unit), _unit_fault(rows["unit"], config)),
    ]
    reason = pc.case_when(
        pc.make_struct(*(test for test, _ in tests_and_reasons)),
        *(reason for _, reason in tests_and_reasons),
        pa.scalar(None, pa.string()),
    )
    raw = pc.if_else(pc.equal(text, rows["raw_text"]), None, rows["raw_text"])
    columns = [keys, rows["source"], rows["row"], text, raw, label, unit, rows["unit"]]
    table, is_bad = pa.table(columns, schema=GOOD), pc.is_valid(reason)
    counts = (normalized.mojibake, normalized.entities, pc.sum(is_damaged).as_py() or 0)
    if not pc.any(is_bad).as_py():
        return Cleaned(table, REJECTED.empty_table(), *counts)
    columns = [rows["source"], rows["row"], reason, rows["raw_text"], rows["raw_label"]]
    rejected = pa.table(columns, schema=REJECTED).filter(is_bad)
    return Cleaned(table.filter(pc.invert(is_bad)), rejected, *counts)


# --- labels -------------------------------------------------------------------------------------


def label_ids(raw: pa.ChunkedArray, source: SourceConfig) -> pa.Array:
    """Map a source's labels to ids by its `label_map` or `thresholds`.

    Returns:
        Positions in `LABELS`, int8; null where the label is unknown.
    """
    # Labels are few and rows many: look up each spelling once.
    encoded = pc.dictionary_encode(raw).combine_chunks()
    lookup = _score_reader(*source.thresholds) if source.thresholds else _name_reader(source)
    ids = pa.array([lookup(value) for value in encoded.dictionary.to_pylist()], pa.int8())
    return ids.take(encoded.indices)


def _is_blank(raw: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(raw), ""), True)


def _is_dropped(raw: pa.ChunkedArray, source: SourceConfig) -> pa.Array:
    """Return which rows have a label of the source's `drop_labels`."""
    if not source.drop_labels:
        return pa.scalar(False)
    dropped = {word for label in source.drop_labels for word in spellings(label)}
    encoded = pc.dictionary_encode(raw).combine_chunks()
    is_dropped = [
        _plain_name(value, dropped) in dropped for value in encoded.dictionary.to_pylist()
    ]
    return pc.fill_null(pa.array(is_dropped, pa.bool_()).take(encoded.indices), False)


def _name_reader(source: SourceConfig) -> Callable[[str], int | None]:
    mapped = {raw.strip(): LABEL2ID[label] for raw, label in source.label_map.items()}
    other_spellings = {word: label for raw, label in mapped.items() for word in spellings(raw)}
    names: Mapping[str, int] = {**LABEL2ID, **other_spellings, **mapped}
    return lambda value: names.get(_plain_name(value, names))


def _plain_name(value: str, known: Container[str]) -> str:
    """Return a label in lower case. From a list or an object in the cell, take its only label."""
    name = value.strip().lower()
    if name not in known and name.startswith(("[", "{")):
        try:
            name = str(single_label(_parse_cell(value))).strip().lower()
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return name  # no list or object, or several labels
    if name not in known and name.endswith(".0"):  # an integer from a column of floats
        name = name.removesuffix(".0")
    return name


def _score_reader(low: float, high: float) -> Callable[[str], int | None]:
    def read(value: str) -> int | None:
        try:
            score = float(value)
        except ValueError:
            return None
        if not np.isfinite(score):
            return None
        return LABELS.index(
            "negative" if score < low else "positive" if score > high else "neutral"
        )

    return read


def _parse_cell(cell: str) -> Any:
    """Parse JSON, as Label Studio writes cells, or Python, as pandas writes lists."""
    try:
        return json.loads(cell)
    except ValueError:
        return ast.literal_eval(cell.strip())


# --- units of the split -------------------------------------------------------------------------


def _units(raw: pa.ChunkedArray, keys: pa.Array, config: DataConfig) -> pa.Array:
    if config.split.time.column:
        return _time_units(raw, config.split.time)
    if config.split.group_by:
        encoded = pc.dictionary_encode(pc.utf8_trim_whitespace(raw)).combine_chunks()
        digests = [_digest64(value) if value else None for value in encoded.dictionary.to_pylist()]
        return pa.array(digests, pa.uint64()).take(encoded.indices)
    return pa.array(key64(keys))


def _unit_fault(raw: pa.ChunkedArray, config: DataConfig) -> pa.Array:
    """Return why a row has no unit."""
    if not config.split.time.column:
        return pa.scalar("missing_group")
    excerpt = pc.utf8_slice_codeunits(raw, 0, _MAX_FAULT_CHARS)
    unknown_time = pc.binary_join_element_wise("unknown_time: ", excerpt, "")
    return pc.if_else(_is_blank(raw), "missing_time", unknown_time)


def _digest64(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big")


def _time_units(raw: pa.ChunkedArray, config: TimeSplitConfig) -> pa.Array:
    """Return 0, 1, 2 for train, validation, test; null where the value is not an ISO time."""
    times = parse_times(raw.to_pylist())
    validation_from = pd.Timestamp(iso_time(str(config.validation_from)))
    test_from = pd.Timestamp(iso_time(str(config.test_from)))
    unit = (times >= validation_from).astype(np.uint64) + (times >= test_from).astype(np.uint64)
    return pa.array(unit, pa.uint64(), mask=np.asarray(times.isna()))


def parse_times(values: list[Any]) -> pd.DatetimeIndex:
    """Parse ISO 8601 dates and times, in UTC; NaT where a value is neither."""
    # pandas would also accept `now`.
    dates = [v if isinstance(v, str) and v[:1].isdigit() else None for v in values]
    return pd.DatetimeIndex(
        pd.to_datetime(pd.Series(dates, dtype=object), format="ISO8601", utc=True, errors="coerce")
    )
