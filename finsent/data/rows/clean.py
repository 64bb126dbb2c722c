"""From raw rows to normalized, labeled, keyed rows; bad ones carry a reason."""

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

LEFT_OUT, DROPPED = "left_out", "dropped_label"  # reasons that a source's settings wish

GOOD = pa.schema(
    [
        ("key", pa.binary(16)),  # what makes two texts the same: a digest of the text
        ("source", pa.int32()),
        ("row", pa.int64()),
        ("text", pa.string()),
        ("raw_text", pa.string()),  # null where it equals `text`
        ("label", pa.int8()),  # position in LABELS; null in a source that must stay unseen
        ("unit", pa.uint64()),  # what decides the split
        ("unit_text", pa.string()),  # the same as the file has it; null where the text decides
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
    """A block's rows by usability, and what was mended."""

    good: pa.Table  # schema GOOD
    rejected: pa.Table  # schema REJECTED
    mojibake: int  # rows
    entities: int  # rows
    damaged: int  # rows with a sign that was lost, U+FFFD


def clean(rows: pa.Table, source: SourceConfig, excluded: bool, config: DataConfig) -> Cleaned:
    """Normalize texts, map labels to ids, and tell bad rows from good ones.

    Args:
        rows: of one source; schema finsent.data.readers.columns.ROWS`.
        source: its settings.
        excluded: the source must stay unseen: its texts need no label, and any length will do.
    """
    normalized = normalize(rows["raw_text"])
    text = normalized.text
    label = pa.nulls(len(rows), pa.int8()) if excluded else label_ids(rows["raw_label"], source)
    keys = text_keys(text)
    unit = pa.array(key64(keys)) if excluded else _units(rows["unit"], keys, config)
    damaged = pc.fill_null(pc.match_substring(rows["raw_text"], LOST), False)
    reason = pc.case_when(
        pc.make_struct(
            pc.is_valid(rows["fault"]),
            pc.and_(not excluded, _dropped(rows["raw_label"], source)),
            pc.equal(text, ""),
            pc.and_(not excluded and source.bad_bytes == "reject", damaged),
            pc.and_(not excluded, pc.greater(pc.utf8_length(text), config.max_chars)),
            pc.and_(not excluded, pc.fill_null(pc.equal(_spelling(rows["raw_label"]), ""), True)),
            pc.and_(not excluded, pc.is_null(label)),
            pc.is_null(unit),
        ),
        rows["fault"],
        pa.scalar(DROPPED),
        pa.scalar("missing_text"),
        pa.scalar("damaged_text"),
        pa.scalar("text_too_long"),
        pa.scalar("missing_label"),
        pa.scalar("unknown_label"),
        _unit_fault(rows["unit"], config),
        pa.scalar(None, pa.string()),
    )
    raw = pc.if_else(pc.equal(text, rows["raw_text"]), None, rows["raw_text"])
    columns = [keys, rows["source"], rows["row"], text, raw, label, unit, rows["unit"]]
    table, bad = pa.table(columns, schema=GOOD), pc.is_valid(reason)
    counts = (normalized.mojibake, normalized.entities, pc.sum(damaged).as_py() or 0)
    if not pc.any(bad).as_py():
        return Cleaned(table, REJECTED.empty_table(), *counts)
    rejected = [rows["source"], rows["row"], reason, rows["raw_text"], rows["raw_label"]]
    return Cleaned(
        table.filter(pc.invert(bad)), pa.table(rejected, schema=REJECTED).filter(bad), *counts
    )


# --- labels -------------------------------------------------------------------------------------


def label_ids(raw: pa.ChunkedArray, source: SourceConfig) -> pa.Array:
    """Ids of the labels as a source writes them, by its `label_map` or `thresholds`.

    Returns:
        Positions in `LABELS`, int8; null where the label is unknown.
    """
    # Labels are few and rows many: each spelling is looked up once.
    encoded = pc.dictionary_encode(raw).combine_chunks()
    spellings = encoded.dictionary.to_pylist()
    lookup = _score_reader(*source.thresholds) if source.thresholds else _name_reader(source)
    ids = pa.array([lookup(spelling) for spelling in spellings], pa.int8())
    return ids.take(encoded.indices)


def _spelling(raw: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_lower(pc.utf8_trim_whitespace(raw))


def _dropped(raw: pa.ChunkedArray, source: SourceConfig) -> pa.Array:
    """Which rows have a label that their source leaves out."""
    if not source.drop_labels:
        return pa.scalar(False)
    wanted = {word for label in source.drop_labels for word in spellings(label)}
    encoded = pc.dictionary_encode(raw).combine_chunks()
    which = [_plain(label, wanted) in wanted for label in encoded.dictionary.to_pylist()]
    return pc.fill_null(pa.array(which, pa.bool_()).take(encoded.indices), False)


def _name_reader(source: SourceConfig) -> Callable[[str], int | None]:
    mapped = {raw.strip(): LABEL2ID[label] for raw, label in source.label_map.items()}
    also = {word: label for raw, label in mapped.items() for word in spellings(raw)}
    names: Mapping[str, int] = {**LABEL2ID, **also, **mapped}
    return lambda spelling: names.get(_plain(spelling, names))


def _plain(spelling: str, known: Container[str]) -> str:
    """A label in lower case; of a cell with a list or an object the one that it holds."""
    name = spelling.strip().lower()
    if name not in known and name.startswith(("[", "{")):
        try:
            name = str(single_label(_parsed(spelling))).strip().lower()
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return name  # neither, or several labels
    if name not in known and name.endswith(".0"):  # an integer from a column of floats
        name = name.removesuffix(".0")
    return name


def _score_reader(low: float, high: float) -> Callable[[str], int | None]:
    def read(spelling: str) -> int | None:
        try:
            score = float(spelling)
        except ValueError:
            return None
        if not np.isfinite(score):
            return None
        return LABELS.index(
            "negative" if score < low else "positive" if score > high else "neutral"
        )

    return read


def _parsed(cell: str) -> Any:
    """A cell of JSON, as Label Studio writes, or of Python, as pandas writes lists."""
    try:
        return json.loads(cell)
    except ValueError:
        return ast.literal_eval(cell.strip())


# --- what decides the split ---------------------------------------------------------------------


def _units(raw: pa.ChunkedArray, keys: pa.Array, config: DataConfig) -> pa.Array:
    if config.split.time.column:
        return _time_units(raw, config.split.time)
    if config.split.group_by:
        encoded = pc.dictionary_encode(pc.utf8_trim_whitespace(raw)).combine_chunks()
        digests = [_digest64(value) if value else None for value in encoded.dictionary.to_pylist()]
        return pa.array(digests, pa.uint64()).take(encoded.indices)
    return pa.array(key64(keys))


def _unit_fault(raw: pa.ChunkedArray, config: DataConfig) -> pa.Array:
    """Why a row has no unit."""
    if not config.split.time.column:
        return pa.scalar("missing_group")
    there = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(raw), ""), False)
    shown = pc.binary_join_element_wise("unknown_time: ", pc.utf8_slice_codeunits(raw, 0, 40), "")
    return pc.if_else(there, shown, "missing_time")


def _digest64(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big")


def _time_units(raw: pa.ChunkedArray, config: TimeSplitConfig) -> pa.Array:
    """0, 1, 2 for train, validation, test; null where the value is no ISO time."""
    times = parse_times(raw.to_pylist())
    bounds = [pd.Timestamp(iso_time(str(b))) for b in (config.validation_from, config.test_from)]
    unit = (times >= bounds[0]).astype(np.uint64) + (times >= bounds[1]).astype(np.uint64)
    return pa.array(unit, pa.uint64(), mask=np.asarray(times.isna()))


def parse_times(values: list[Any]) -> pd.DatetimeIndex:
    """ISO 8601 dates and times in UTC; NaT where a value is none."""
    # pandas would also take `now` for a time.
    dates = [v if isinstance(v, str) and v[:1].isdigit() else None for v in values]
    return pd.DatetimeIndex(
        pd.to_datetime(pd.Series(dates, dtype=object), format="ISO8601", utc=True, errors="coerce")
    )
