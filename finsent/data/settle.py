"""What becomes of each row of a partition: kept in a split, duplicate, conflict, or rejected.

All rows of one text lie in one partition, so each partition is settled alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.config import DataConfig, SplitConfig
from finsent.labels import LABELS

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Settled:
    """A partition's rows by fate. Every input row is in exactly one count."""

    splits: dict[str, pa.Table]
    rejected: pa.Table
    conflicts: pa.Table  # all rows of the texts in conflict, with the decision
    duplicates: int
    conflict_rows: int  # rows that a conflict removed


def split_of(keys: list[str], salt: str, shares: SplitConfig) -> list[str]:
    """The split of each text: a hash of its key, so that it never depends on the other rows."""
    bounds = (shares.train, shares.train + shares.validation)
    splits = []
    for key in keys:
        hashed = hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest()
        position = int.from_bytes(hashed, "big") / 2**64
        splits.append(SPLITS[(position >= bounds[0]) + (position >= bounds[1])])
    return splits


def settle(rows: pa.Table, names: list[str], config: DataConfig) -> Settled:
    """Drop duplicates, resolve conflicts by policy, and split the rest.

    Args:
        rows: schema `finsent.data.clean.CLEAN`; all rows of a text, or none.
        names: names of the source files, by position.
    """
    good = pc.is_null(rows["reason"])
    rejected = _with_source(rows.filter(pc.invert(good)), names)
    rejected = rejected.select(["source", "row", "reason", "raw_text", "raw_label"])
    rejected = rejected.sort_by([("source", "ascending"), ("row", "ascending")])

    rows = rows.filter(good).sort_by(
        [("key", "ascending"), ("source", "ascending"), ("row", "ascending")]
    )
    label = rows["label"].to_numpy().astype(np.int64)
    group = _group_ids(rows["key"])
    votes = np.zeros((int(group[-1]) + 1 if len(group) else 0, len(LABELS)), np.int64)
    np.add.at(votes, (group, label), 1)
    in_conflict = (votes > 0).sum(1) > 1
    winner = _winners(votes, in_conflict, config.conflicts)

    wins = label == winner[group]
    candidates = np.flatnonzero(wins)
    kept = np.zeros(len(group), bool)
    kept[candidates[np.unique(group[candidates], return_index=True)[1]]] = True
    lost = in_conflict[group] & ~wins

    conflicts = _with_source(rows.filter(pa.array(in_conflict[group])), names)
    decisions = [f"kept as {LABELS[w]}" if w >= 0 else "dropped" for w in winner[group]]
    conflicts = _output(conflicts).append_column(
        "decision", pa.array(np.array(decisions, dtype=object)[in_conflict[group]], pa.string())
    )
    table = _output(_with_source(rows.filter(pa.array(kept)), names))
    fate = pa.array(split_of(table["key"].to_pylist(), config.salt, config.split), pa.string())
    return Settled(
        splits={name: table.filter(pc.equal(fate, name)) for name in SPLITS},
        rejected=rejected,
        conflicts=conflicts,
        duplicates=int((~kept & ~lost).sum()),
        conflict_rows=int(lost.sum()),
    )


def _group_ids(keys: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """0, 0, 1, 2, 2, ... for sorted keys."""
    values = np.asarray(keys.to_pylist(), dtype=object)
    changes = np.r_[False, values[1:] != values[:-1]] if len(values) else np.zeros(0, bool)
    return np.cumsum(changes).astype(np.int64)


def _winners(
    votes: npt.NDArray[np.int64], in_conflict: npt.NDArray[np.bool_], policy: str
) -> npt.NDArray[np.int64]:
    """The label id that each text keeps, or -1 when its rows are dropped."""
    best = votes.argmax(1) if len(votes) else np.zeros(0, np.int64)
    if policy == "majority":
        tie = (votes == votes.max(1, keepdims=True)).sum(1) > 1 if len(votes) else in_conflict
        return np.where(tie, -1, best)
    return np.where(in_conflict, -1, best)


def _with_source(rows: pa.Table, names: list[str]) -> pa.Table:
    source = pa.array(names, pa.string()).take(rows["source"].combine_chunks())
    return rows.set_column(rows.schema.get_field_index("source"), "source", source)


def _output(rows: pa.Table) -> pa.Table:
    """The columns of a published split; labels by name."""
    label = pa.array(LABELS, pa.string()).take(rows["label"].combine_chunks())
    return pa.table(
        {
            "key": rows["key"],
            "text": rows["text"],
            "label": label,
            "source": rows["source"],
            "row": rows["row"],
            "raw_text": rows["raw_text"],
        }
    )


def count_labels(table: pa.Table) -> dict[str, int]:
    """Rows by label, in the order of `LABELS`."""
    counts = Counter(table["label"].to_pylist())
    return {label: counts[label] for label in LABELS}
