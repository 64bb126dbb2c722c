"""The rows that differ between two dataset versions, found in memory that does not grow with them.

Rows are the same when their keys are. Both versions are walked through side by side in ranges of
keys, on narrow columns; texts are read for examples only. Keys are compared by their first 64 bits:
among 10 million texts any two share them once in 370,000 versions, and are then told apart by their
labels only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from finsent.data.rows.split import SPLITS
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.labels import LABELS

KINDS = ("added", "removed", "relabeled", "moved", "changed_source")

_ROWS_AT_ONCE = 1_000_000  # of the larger version
_FETCHED = ("key", "text", "row")
_HEX = np.zeros(256, np.uint8)
_HEX[[*b"0123456789abcdef"]] = np.arange(16)

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

_Found = dict[tuple[int, int], dict[str, Any]]
_Place = tuple[int, int, int]  # label, split and source of a row
_Example = tuple[int, _Place | None, _Place | None]  # key; the row in a, and in b


def row_changes(
    a: DatasetVersion, b: DatasetVersion, examples: int
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The keys `rows` and `examples` of `finsent.data.versions.diff.diff`.

    Raises:
        InputError: a split's file is not one of ours.
    """
    side_a, side_b = _Side(a), _Side(b)
    changes = _Changes(side_a.names, side_b.names, examples)
    for first, last in _ranges(max(side_a.total, side_b.total)):
        changes.add(side_a.rows(first, last), side_b.rows(first, last))
    return changes.summary(), _examples(side_a, side_b, changes.examples)


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Rows of one version in a range of keys, in the order of key and label."""

    key: Keys
    label: npt.NDArray[np.int8]  # positions in LABELS
    split: npt.NDArray[np.int8]  # positions in SPLITS
    source: Codes  # positions in _Side.names

    def take(self, places: Ints) -> _Rows:
        return _Rows(self.key[places], self.label[places], self.split[places], self.source[places])

    def place(self, index: int) -> _Place:
        return int(self.label[index]), int(self.split[index]), int(self.source[index])


@dataclass(frozen=True)
class _Group:
    """A row group of a split's file, and the keys that it may hold."""

    file: Path
    index: int
    split: int
    first: int
    last: int


@dataclass(frozen=True)
class _Side:
    """One version, read by ranges of keys."""

    version: DatasetVersion
    names: dict[str, int] = field(default_factory=dict)  # of the sources, as they are met

    @cached_property
    def total(self) -> int:
        return sum(self.version.rows(split) for split in SPLITS)

    @cached_property
    def groups(self) -> list[_Group]:
        return [
            group
            for position, split in enumerate(SPLITS)
            for file in self.version.files(split)
            for group in _row_groups(file, position)
        ]

    def rows(self, first: int, last: int) -> _Rows:
        """The rows whose keys lie from `first` to `last`, both included."""
        parts = [
            self._part(group, first, last)
            for group in self.groups
            if group.first <= last and first <= group.last
        ]
        key = np.concatenate([np.zeros(0, np.uint64), *(part.key for part in parts)])
        label = np.concatenate([np.zeros(0, np.int8), *(part.label for part in parts)])
        split = np.concatenate([np.zeros(0, np.int8), *(part.split for part in parts)])
        source = np.concatenate([np.zeros(0, np.int32), *(part.source for part in parts)])
        return _Rows(key, label, split, source).take(np.lexsort((split, label, key)))

    def _part(self, group: _Group, first: int, last: int) -> _Rows:
        table = _read(group, ["key", "label", "source"])
        key = _prefixes(table["key"])
        inside = (key >= np.uint64(first)) & (key <= np.uint64(last))
        key = key[inside]
        return _Rows(
            key,
            _codes(table["label"], {name: i for i, name in enumerate(LABELS)})[inside].astype("i1"),
            np.full(len(key), group.split, np.int8),
            _codes(table["source"], self.names)[inside],
        )

    def find(self, wanted: set[tuple[int, int]]) -> _Found:
        """What `_FETCHED` names of rows, by the key's first 64 bits and the label."""
        keys = np.array(sorted({key for key, _ in wanted}), np.uint64)
        found: _Found = {}
        for group in self.groups:
            if not _any_within(keys, group.first, group.last):
                continue
            table = _read(group, [*_FETCHED, "label"])
            table = table.filter(pa.array(np.isin(_prefixes(table["key"]), keys)))
            for row in table.to_pylist():
                found[int(row["key"][:16], 16), LABELS.index(row["label"])] = row
        return found

    def shown(self, key: int, place: _Place | None, found: _Found) -> dict[str, Any] | None:
        """A row for people."""
        if place is None:
            return None
        label, split, source = place
        return {
            **{name: found[key, label][name] for name in _FETCHED},
            "label": LABELS[label],
            "split": SPLITS[split],
            "source": [*self.names][source],
        }


def _row_groups(file: Path, split: int) -> Iterator[_Group]:
    try:
        parquet = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read ({error}); ingest again") from None
    with parquet:
        names, metadata = parquet.schema_arrow.names, parquet.metadata
    missing = {*_FETCHED, "label", "source"} - {*names}
    if missing:
        raise InputError(f"{file}: has no column {min(missing)!r}; ingest again")
    for index in range(metadata.num_row_groups):
        keys = metadata.row_group(index).column(names.index("key")).statistics
        first, last = 0, 2**64 - 1
        if keys is not None and keys.has_min_max:
            first, last = int(keys.min[:16], 16), int(keys.max[:16], 16)
        yield _Group(file, index, split, first, last)


def _any_within(keys: Keys, first: int, last: int) -> bool:
    """Whether a sorted key lies from `first` to `last`."""
    place = np.searchsorted(keys, np.uint64(first))
    return bool(place < len(keys) and keys[place] <= np.uint64(last))


def _read(group: _Group, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(group.file, read_dictionary=["label", "source"]) as parquet:
        return parquet.read_row_group(group.index, columns=columns, use_threads=False)


def _prefixes(keys: pa.ChunkedArray) -> Keys:
    """The first 64 bits of keys in hex."""
    fixed = pc.utf8_slice_codeunits(keys, 0, 16).cast(pa.binary()).cast(pa.binary(16))
    digits = [np.zeros(0, np.uint8)]
    for chunk in fixed.chunks:
        if len(chunk):
            held = np.frombuffer(chunk.buffers()[1], np.uint8)
            digits.append(held[16 * chunk.offset : 16 * (chunk.offset + len(chunk))])
    nibbles = _HEX[np.concatenate(digits)].reshape(-1, 2)
    return (nibbles[:, 0] << 4 | nibbles[:, 1]).view(">u8").astype(np.uint64)


def _codes(column: pa.ChunkedArray, names: dict[str, int]) -> Codes:
    """The positions of a dictionary column's values in `names`, to which new ones are added."""
    parts = [np.zeros(0, np.int32)]
    for chunk in column.chunks:
        known = [names.setdefault(name, len(names)) for name in chunk.dictionary.to_pylist()]
        parts.append(np.array(known, np.int32)[chunk.indices.to_numpy()])
    return np.concatenate(parts)


def _ranges(rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of keys, in order, that hold about `_ROWS_AT_ONCE` rows each: keys are hashes."""
    count = 1 + rows // _ROWS_AT_ONCE
    for index in range(count):
        yield index * 2**64 // count, (index + 1) * 2**64 // count - 1


# --- comparing ----------------------------------------------------------------------------------


class _Changes:
    """Adds up the differences of one range of keys after another."""

    def __init__(self, names_a: dict[str, int], names_b: dict[str, int], examples: int) -> None:
        self.names_a, self.names_b, self.wanted = names_a, names_b, examples
        kinds = (len(SPLITS), len(LABELS))
        self.removed, self.added = np.zeros(kinds, np.int64), np.zeros(kinds, np.int64)
        self.stayed = np.zeros(kinds * 2, np.int64)  # split and label in a, then those in b
        self.sources: Counter[tuple[str, str]] = Counter()
        self.unchanged = 0
        self.examples: dict[str, list[_Example]] = {kind: [] for kind in KINDS}

    def add(self, a: _Rows, b: _Rows) -> None:
        """Compare the rows of both versions in one range of keys."""
        in_a, in_b = _pair(a, b)
        gone = a.take(np.setdiff1d(np.arange(len(a.key)), in_a, assume_unique=True))
        new = b.take(np.setdiff1d(np.arange(len(b.key)), in_b, assume_unique=True))
        a, b = a.take(in_a), b.take(in_b)
        np.add.at(self.removed, (gone.split, gone.label), 1)
        np.add.at(self.added, (new.split, new.label), 1)
        places = np.ravel_multi_index((a.split, a.label, b.split, b.label), self.stayed.shape)
        self.stayed += np.bincount(places, minlength=self.stayed.size).reshape(self.stayed.shape)
        relabeled, moved = a.label != b.label, a.split != b.split
        changed_source = self._changed_source(a.source, b.source)
        self.unchanged += int((~(relabeled | moved | changed_source)).sum())
        self._show("added", None, new)
        self._show("removed", gone, None)
        for kind, which in (
            ("relabeled", relabeled),
            ("moved", moved),
            ("changed_source", changed_source),
        ):
            chosen = np.flatnonzero(which)
            self._show(kind, a.take(chosen), b.take(chosen))

    def _changed_source(self, a: Codes, b: Codes) -> Bools:
        names_a, names_b = [*self.names_a], [*self.names_b]
        in_a = np.array([self.names_a.get(name, -1) for name in names_b], np.int32)
        changed = np.asarray(in_a[b] != a) if len(b) else np.zeros(0, bool)
        pairs = a[changed].astype(np.int64) * len(names_b) + b[changed]
        for pair, rows in zip(*(found.tolist() for found in np.unique_counts(pairs)), strict=True):
            self.sources[names_a[pair // len(names_b)], names_b[pair % len(names_b)]] += rows
        return changed

    def _show(self, kind: str, a: _Rows | None, b: _Rows | None) -> None:
        shown = self.examples[kind]
        one = a if a is not None else b
        if one is None or len(shown) >= self.wanted:  # ranges come in the order of keys
            return
        for place in np.argsort(one.key, kind="stable")[: self.wanted - len(shown)].tolist():
            in_a, in_b = (None if rows is None else rows.place(place) for rows in (a, b))
            shown.append((int(one.key[place]), in_a, in_b))

    def summary(self) -> dict[str, Any]:
        """Rows by what became of them."""
        stayed = int(self.stayed.sum())
        relabeled = np.einsum("ijik->ijk", self.stayed)  # of rows that were not moved
        in_place = relabeled.sum((1, 2)) - np.einsum("ijj->i", relabeled)
        return {
            "a": stayed + int(self.removed.sum()),
            "b": stayed + int(self.added.sum()),
            "unchanged": self.unchanged,
            "added": _by_split_and_label(self.added),
            "removed": _by_split_and_label(self.removed),
            "relabeled": {
                **_from_to(self.stayed.sum((0, 2)), LABELS),
                "by_split": dict(zip(SPLITS, in_place.tolist(), strict=True)),
            },
            "moved": _from_to(self.stayed.sum((1, 3)), SPLITS),
            "changed_source": {
                "rows": self.sources.total(),
                "changes": [
                    {"from": old, "to": new, "rows": rows}
                    for (old, new), rows in sorted(self.sources.items())
                ],
            },
        }


def _pair(a: _Rows, b: _Rows) -> tuple[Ints, Ints]:
    """Places of the rows that are the same in `a` and in `b`: by key and label, or else by key.

    A key has several rows where conflicting labels are kept.
    """
    _, ids = np.unique(np.concatenate([a.key, b.key]), return_inverse=True)
    ids_a, ids_b = ids[: len(a.key)], ids[len(a.key) :]
    in_a, in_b = _meet(ids_a * len(LABELS) + a.label, ids_b * len(LABELS) + b.label)
    left_a = np.setdiff1d(np.arange(len(ids_a)), in_a, assume_unique=True)
    left_b = np.setdiff1d(np.arange(len(ids_b)), in_b, assume_unique=True)
    also_a, also_b = _meet(ids_a[left_a], ids_b[left_b])
    return np.concatenate([in_a, left_a[also_a]]), np.concatenate([in_b, left_b[also_b]])


def _meet(a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Places of equal values in two sorted arrays; the n-th of equal ones meets the n-th."""
    rank_a, rank_b = _rank(a), _rank(b)
    ranks = 1 + max(rank_a.max(initial=0), rank_b.max(initial=0))
    _, in_a, in_b = np.intersect1d(
        a * ranks + rank_a, b * ranks + rank_b, assume_unique=True, return_indices=True
    )
    return in_a, in_b


def _rank(values: Ints) -> Ints:
    """How many equal values stand before each, in a sorted array."""
    places = np.arange(len(values))
    starts = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    return places - np.maximum.accumulate(np.where(starts, places, 0))


def _by_split_and_label(counts: Ints) -> dict[str, Any]:
    return {
        "rows": int(counts.sum()),
        "by_split": {
            split: dict(zip(LABELS, counts[i].tolist(), strict=True))
            for i, split in enumerate(SPLITS)
        },
    }


def _from_to(counts: Ints, names: tuple[str, ...]) -> dict[str, Any]:
    """A square table's rows off the diagonal, as changes."""
    changes = [
        {"from": names[i], "to": names[j], "rows": int(counts[i, j])}
        for i, j in np.argwhere(counts).tolist()
        if i != j
    ]
    return {"rows": int(counts.sum() - np.trace(counts)), "changes": changes}


# --- examples -----------------------------------------------------------------------------------


def _examples(a: _Side, b: _Side, found: dict[str, list[_Example]]) -> dict[str, Any]:
    """Rows by kind, with their texts, as they are in each version (None where they are not)."""
    rows = [example for examples in found.values() for example in examples]
    found_a = a.find({(key, there[0]) for key, there, _ in rows if there})
    found_b = b.find({(key, there[0]) for key, _, there in rows if there})
    return {
        kind: [
            {"a": a.shown(key, in_a, found_a), "b": b.shown(key, in_b, found_b)}
            for key, in_a, in_b in examples
        ]
        for kind, examples in found.items()
    }
