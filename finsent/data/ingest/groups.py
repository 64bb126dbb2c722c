"""Groups of near texts from their pairs. Runs in the driver, on ids alone.

Groups depend on the age of texts: a newer text never changes the group of an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finsent.data.ingest.near import EDGES

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_MAX_BUFFERED_EDGES = 2_000_000  # before repeated edges are dropped


@dataclass(frozen=True)
class Groups:
    """Groups of near texts, and the texts to remove. Arrays of keys, sorted by the first."""

    member: Words  # texts that belong to an older one
    root: Words  # for each member the oldest text of its group
    roots: Words  # the oldest texts of all groups
    near_excluded: Words  # texts near one that must stay unseen
    near_excluded_by: Words  # for each the order of the text that must stay unseen
    crossing: Words  # texts near an older one of another split
    crossing_by: Words  # for each the order of the older text

    def roots_of(self, keys: Words) -> Words:
        """Return the group of each text: its root, or the text itself."""
        if not len(self.member):
            return keys
        position = np.minimum(np.searchsorted(self.member, keys), len(self.member) - 1)
        return np.where(self.member[position] == keys, self.root[position], keys)


def resolve(
    edges: Iterable[pa.Table], split_of: Callable[[Words], npt.NDArray[np.int8]], by_text: bool
) -> Groups:
    """Group near texts, and find the texts that would be near an older one of another split.

    A text's parent is the oldest of its older neighbors, its root the end of the chain of parents.
    Both depend on older texts alone. Among the texts that are neither `near_excluded` nor
    `crossing`, no edge joins two splits.

    Args:
        edges: tables of schema `EDGES`; a pair may be repeated.
        split_of: returns the splits of units.
        by_text: whether the unit of a text is its root; otherwise the edges have the unit.
    """
    graph = _Graph.of(edges)
    keys, order = graph.key, graph.order
    older, newer = graph.pairs & 0xFFFFFFFF, graph.pairs >> 32
    root = _find_roots(older, newer, order)
    split = split_of(keys[root] if by_text else graph.unit)
    is_removed = np.isin(keys, graph.near_excluded)
    crosses = np.flatnonzero(split[older] != split[newer])
    is_crossing, crossing_by = np.zeros(len(keys), bool), np.zeros(len(keys), np.uint64)
    # From the oldest text on: when a text is visited, its older neighbors are decided.
    for edge in crosses[np.argsort(order[newer[crosses]], kind="stable")].tolist():
        if not is_removed[older[edge]] and not is_removed[newer[edge]]:
            is_removed[newer[edge]] = is_crossing[newer[edge]] = True
            crossing_by[newer[edge]] = order[older[edge]]
    is_member = root != np.arange(len(keys))
    roots = keys[root[is_member]]
    return Groups(
        member=keys[is_member],
        root=roots,
        roots=np.unique(roots),
        near_excluded=graph.near_excluded,
        near_excluded_by=graph.near_excluded_by,
        crossing=keys[is_crossing],
        crossing_by=crossing_by[is_crossing],
    )


@dataclass
class _Graph:
    """Edges between numbered texts: 8 bytes per edge, 24 per text."""

    key: Words  # of each text, sorted
    order: Words
    unit: Words
    pairs: Ints  # the newer text's number in the upper 32 bits, the older one's in the lower
    near_excluded: Words
    near_excluded_by: Words

    @classmethod
    def of(cls, tables: Iterable[pa.Table]) -> _Graph:
        """Read edges, and fold buffered ones into the graph as they repeat each other."""
        empty = np.zeros(0, np.uint64)
        graph = cls(empty, empty, empty, np.zeros(0, np.int64), empty, empty)
        buffered, row_count = [EDGES.empty_table()], 0
        for table in tables:
            buffered.append(table.cast(EDGES))
            row_count += len(table)
            if row_count > max(_MAX_BUFFERED_EDGES, len(graph.pairs)):
                graph._add(pa.concat_tables(buffered))
                buffered, row_count = [], 0
        if buffered:
            graph._add(pa.concat_tables(buffered))
        return graph

    def _add(self, edges: pa.Table) -> None:
        is_excluded = edges["a_excluded"].to_numpy()
        self._exclude(edges.filter(pa.array(is_excluded)))
        edges = edges.filter(pa.array(~is_excluded))

        def with_ends(known: Words, name: str) -> Words:
            return np.concatenate([known, *(edges[f"{end}_{name}"].to_numpy() for end in "ab")])

        old_keys = self.key
        self.key, first_rows = np.unique(with_ends(old_keys, "key"), return_index=True)
        self.order = with_ends(self.order, "order")[first_rows]
        self.unit = with_ends(self.unit, "unit")[first_rows]
        renumbered = np.searchsorted(self.key, old_keys)
        a, b = (np.searchsorted(self.key, edges[f"{end}_key"].to_numpy()) for end in "ab")
        old_pairs = renumbered[self.pairs >> 32] << 32 | renumbered[self.pairs & 0xFFFFFFFF]
        self.pairs = np.unique(np.concatenate([old_pairs, b << 32 | a]))

    def _exclude(self, edges: pa.Table) -> None:
        """Add each newer text, with the oldest text that must stay unseen and is near it."""
        keys = np.concatenate([self.near_excluded, edges["b_key"].to_numpy()])
        orders = np.concatenate([self.near_excluded_by, edges["a_order"].to_numpy()])
        by_key = np.lexsort((orders, keys))
        self.near_excluded, first_rows = np.unique(keys[by_key], return_index=True)
        self.near_excluded_by = orders[by_key][first_rows]


def _find_roots(older: Ints, newer: Ints, order: Words) -> Ints:
    """Return the end of each text's chain of oldest neighbors. Chains have no cycles: they age."""
    parent = np.arange(len(order))
    by_age = np.lexsort((order[older], newer))
    texts, first_rows = np.unique(newer[by_age], return_index=True)
    parent[texts] = older[by_age][first_rows]
    while True:
        grandparent = parent[parent]
        if np.array_equal(grandparent, parent):
            return parent
        parent = grandparent
