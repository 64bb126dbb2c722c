"""Find the rows that differ between two dataset versions, in memory that does not grow with them.

Rows are the same when their keys are. Both versions are read side by side in ranges of keys, and
only narrow columns; texts are read for examples only. Keys are compared by their first 64 bits: of
10 million texts two share these bits in one of 370,000 versions. Such texts are then distinguished
by their labels only.

This is not a join of PyArrow, DuckDB or Polars. The last two would be new required dependencies. A
hash join of PyArrow holds all rows in memory. No join matches rows by key and label first and the
others by key alone, n-th to n-th, so the matching would remain code of this module.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finsent.data.rows.split import SPLITS
from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.diff_records import (
    ExamplePair,
    Relabelings,
    RowChanges,
    RowsBySplit,
    Transition,
    Transitions,
)
from finsent.data.versions.range_reader import (
    Codes,
    Ints,
    RangeReader,
    RowBlock,
    RowOrigin,
    key_ranges,
)
from finsent.labels import LABELS

KINDS = ("added", "removed", "relabeled", "moved", "changed_source")

Bools = npt.NDArray[np.bool_]


def find_row_changes(
    a: DatasetVersion, b: DatasetVersion, examples: int
) -> tuple[RowChanges, dict[str, list[ExamplePair]]]:
    """Count the rows that differ, and return the first examples of each kind of change.

    Raises:
        InputError: a file of a split was not written by ingest.
    """
    reader_a, reader_b = RangeReader(a), RangeReader(b)
    counter = _ChangeCounter(reader_a.source_codes, reader_b.source_codes, examples)
    for first, last in key_ranges(max(reader_a.row_count, reader_b.row_count)):
        counter.add(reader_a.read_range(first, last), reader_b.read_range(first, last))
    return counter.summarize(), _read_examples(reader_a, reader_b, counter.examples)


# --- comparing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Example:
    """A changed row: its key, and its origin in both versions (None where it is missing)."""

    key: int
    a: RowOrigin | None
    b: RowOrigin | None


class _ChangeCounter:
    """Counts the differences of one range of keys after another."""

    def __init__(
        self, source_codes_a: dict[str, int], source_codes_b: dict[str, int], max_examples: int
    ) -> None:
        self.source_codes_a, self.source_codes_b = source_codes_a, source_codes_b
        self.max_examples = max_examples
        shape = (len(SPLITS), len(LABELS))
        self.removed, self.added = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.common = np.zeros(shape * 2, np.int64)  # split and label in a, then those in b
        self.sources: Counter[tuple[str, str]] = Counter()
        self.unchanged = 0
        self.examples: dict[str, list[_Example]] = {kind: [] for kind in KINDS}

    def add(self, a: RowBlock, b: RowBlock) -> None:
        """Compare the rows of both versions in one range of keys."""
        common_a, common_b = _match_rows(a, b)
        removed, added = a.without(common_a), b.without(common_b)
        a, b = a.take(common_a), b.take(common_b)
        np.add.at(self.removed, (removed.split, removed.label), 1)
        np.add.at(self.added, (added.split, added.label), 1)
        cells = np.ravel_multi_index((a.split, a.label, b.split, b.label), self.common.shape)
        counts = np.bincount(cells, minlength=self.common.size)
        self.common += counts.reshape(self.common.shape)
        relabeled, moved = a.label != b.label, a.split != b.split
        changed_source = self._count_changed_sources(a.source, b.source)
        self.unchanged += int((~(relabeled | moved | changed_source)).sum())
        self._add_examples("added", None, added)
        self._add_examples("removed", removed, None)
        for kind, is_changed in (
            ("relabeled", relabeled),
            ("moved", moved),
            ("changed_source", changed_source),
        ):
            indices = np.flatnonzero(is_changed)
            self._add_examples(kind, a.take(indices), b.take(indices))

    def _count_changed_sources(self, a: Codes, b: Codes) -> Bools:
        """Count rows by the names of both sources, and return which rows changed theirs."""
        names_a, names_b = [*self.source_codes_a], [*self.source_codes_b]
        b_to_a = np.array([self.source_codes_a.get(name, -1) for name in names_b], np.int32)
        changed = np.asarray(b_to_a[b] != a) if len(b) else np.zeros(0, bool)
        pairs, counts = np.unique_counts(a[changed].astype(np.int64) * len(names_b) + b[changed])
        for pair, rows in zip(pairs.tolist(), counts.tolist(), strict=True):
            self.sources[names_a[pair // len(names_b)], names_b[pair % len(names_b)]] += rows
        return changed

    def _add_examples(self, kind: str, a: RowBlock | None, b: RowBlock | None) -> None:
        examples = self.examples[kind]
        rows = a if a is not None else b
        missing = self.max_examples - len(examples)
        if rows is None or missing <= 0:  # ranges come in the order of keys
            return
        for index in np.argsort(rows.key, kind="stable")[:missing].tolist():
            examples.append(
                _Example(
                    int(rows.key[index]),
                    None if a is None else a.origin(index),
                    None if b is None else b.origin(index),
                )
            )

    def summarize(self) -> RowChanges:
        """Return the counts of all ranges."""
        common = int(self.common.sum())
        same_split = np.einsum("ijik->ijk", self.common)
        relabeled_in_split = same_split.sum((1, 2)) - np.einsum("ijj->i", same_split)
        relabeled = _count_transitions(self.common.sum((0, 2)), LABELS)
        return RowChanges(
            a=common + int(self.removed.sum()),
            b=common + int(self.added.sum()),
            unchanged=self.unchanged,
            added=_count_by_split(self.added),
            removed=_count_by_split(self.removed),
            relabeled=Relabelings(
                rows=relabeled.rows,
                changes=relabeled.changes,
                by_split=dict(zip(SPLITS, relabeled_in_split.tolist(), strict=True)),
            ),
            moved=_count_transitions(self.common.sum((1, 3)), SPLITS),
            changed_source=Transitions(
                rows=self.sources.total(),
                changes=[
                    Transition(old=old, new=new, rows=rows)
                    for (old, new), rows in sorted(self.sources.items())
                ],
            ),
        )


def _match_rows(a: RowBlock, b: RowBlock) -> tuple[Ints, Ints]:
    """Return the indices of the same rows in `a` and `b`: by key and label, or else by key.

    A key has several rows where conflicting labels are kept.
    """
    _, ids = np.unique(np.concatenate([a.key, b.key]), return_inverse=True)
    ids_a, ids_b = ids[: len(a.key)], ids[len(a.key) :]
    by_label_a, by_label_b = _match_values(
        ids_a * len(LABELS) + a.label, ids_b * len(LABELS) + b.label
    )
    others_a = np.setdiff1d(np.arange(len(ids_a)), by_label_a, assume_unique=True)
    others_b = np.setdiff1d(np.arange(len(ids_b)), by_label_b, assume_unique=True)
    by_key_a, by_key_b = _match_values(ids_a[others_a], ids_b[others_b])
    return (
        np.concatenate([by_label_a, others_a[by_key_a]]),
        np.concatenate([by_label_b, others_b[by_key_b]]),
    )


def _match_values(a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Return the indices of equal values in two sorted arrays; the n-th matches the n-th."""
    rank_a, rank_b = _rank_equal(a), _rank_equal(b)
    rank_count = 1 + max(rank_a.max(initial=0), rank_b.max(initial=0))
    _, matched_a, matched_b = np.intersect1d(
        a * rank_count + rank_a, b * rank_count + rank_b, assume_unique=True, return_indices=True
    )
    return matched_a, matched_b


def _rank_equal(values: Ints) -> Ints:
    """Return how many equal values precede each value of a sorted array."""
    indices = np.arange(len(values))
    is_first = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    return indices - np.maximum.accumulate(np.where(is_first, indices, 0))


def _count_by_split(counts: Ints) -> RowsBySplit:
    return RowsBySplit(
        rows=int(counts.sum()),
        by_split={
            split: dict(zip(LABELS, counts[position].tolist(), strict=True))
            for position, split in enumerate(SPLITS)
        },
    )


def _count_transitions(counts: Ints, names: tuple[str, ...]) -> Transitions:
    """Return the rows off the diagonal of a square table, as transitions."""
    return Transitions(
        rows=int(counts.sum() - np.trace(counts)),
        changes=[
            Transition(old=names[i], new=names[j], rows=int(counts[i, j]))
            for i, j in np.argwhere(counts).tolist()
            if i != j
        ],
    )


# --- examples -----------------------------------------------------------------------------------


def _read_examples(
    a: RangeReader, b: RangeReader, examples: dict[str, list[_Example]]
) -> dict[str, list[ExamplePair]]:
    """Read the texts of the examples, by kind of change."""
    every = [example for of_kind in examples.values() for example in of_kind]
    rows_a = a.read_rows({(each.key, each.a.label) for each in every if each.a})
    rows_b = b.read_rows({(each.key, each.b.label) for each in every if each.b})
    return {
        kind: [
            ExamplePair(
                a=a.example_row(each.key, each.a, rows_a), b=b.example_row(each.key, each.b, rows_b)
            )
            for each in of_kind
        ]
        for kind, of_kind in examples.items()
    }
