"""Groups of near texts, from their pairs; in the driver, on ids alone.

Groups depend on the age of texts: a newer text never changes what an older one belongs to.
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

_FOLD = 2_000_000  # edges that pile up before repeated ones are dropped


@dataclass(frozen=True)
class Groups:
    """Which texts belong together, and which cannot stay; ids only, arrays sorted."""

    member: Words  # texts that belong to an older one
    root: Words  # the oldest text of each member's group
    roots: Words  # those texts, each once
    near_excluded: Words  # texts near one that must stay unseen
    near_excluded_by: Words  # the age of that one, for each
    crossing: Words  # texts near an older one of another split
    crossing_by: Words  # the age of that one, for each

    def roots_of(self, keys: Words) -> Words:
        """The group of each text: its root, or the text itself."""
        if not len(self.member):
            return keys
        place = np.minimum(np.searchsorted(self.member, keys), len(self.member) - 1)
        return np.where(self.member[place] == keys, self.root[place], keys)


def resolve(
    edges: Iterable[pa.Table], split_of: Callable[[Words], npt.NDArray[np.int8]], by_text: bool
) -> Groups:
    """Groups of near texts, and the texts that would stand near an older one of another split.

    A text's parent is its oldest older neighbour, its root the end of the chain of parents; both
    depend on older texts alone. Among what is neither `near_excluded` nor `crossing`, no edge joins
    two splits.

    Args:
        edges: parts of schema `EDGES`; a pair may come more than once.
        split_of: the splits of units.
        by_text: the unit of a text is its root; otherwise the edges say it.
    """
    graph = _Graph.of(edges)
    keys, order = graph.key, graph.order
    a, b = graph.pairs & 0xFFFFFFFF, graph.pairs >> 32
    root = _roots(a, b, order)
    split = split_of(keys[root] if by_text else graph.unit)
    gone = np.isin(keys, graph.near_excluded)
    differ = np.flatnonzero(split[a] != split[b])
    crossing, met = np.zeros(len(keys), bool), np.zeros(len(keys), np.uint64)
    # From the oldest on: whether the older end stays is known when the newer one is looked at.
    for edge in differ[np.argsort(order[b[differ]], kind="stable")].tolist():
        if not gone[a[edge]] and not gone[b[edge]]:
            gone[b[edge]] = crossing[b[edge]] = True
            met[b[edge]] = order[a[edge]]
    member = root != np.arange(len(keys))
    groups = keys[root[member]]
    return Groups(
        member=keys[member],
        root=groups,
        roots=np.unique(groups),
        near_excluded=graph.near_excluded,
        near_excluded_by=graph.near_excluded_by,
        crossing=keys[crossing],
        crossing_by=met[crossing],
    )


@dataclass
class _Graph:
    """Edges as they come in, with their ends by number: 8 bytes an edge, 24 a text."""

    key: Words  # of each text, sorted
    order: Words
    unit: Words
    pairs: Ints  # numbers of two texts in one: the newer one's above the older one's
    near_excluded: Words
    near_excluded_by: Words

    @classmethod
    def of(cls, parts: Iterable[pa.Table]) -> _Graph:
        nothing = np.zeros(0, np.uint64)
        graph = cls(nothing, nothing, nothing, np.zeros(0, np.int64), nothing, nothing)
        waiting, rows = [EDGES.empty_table()], 0
        for part in parts:
            waiting.append(part.cast(EDGES))
            rows += len(part)
            if rows > max(_FOLD, len(graph.pairs)):  # parts repeat each other's edges
                graph._add(pa.concat_tables(waiting))
                waiting, rows = [], 0
        if waiting:
            graph._add(pa.concat_tables(waiting))
        return graph

    def _add(self, edges: pa.Table) -> None:
        excluded = edges["a_excluded"].to_numpy()
        self._exclude(edges.filter(pa.array(excluded)))
        edges = edges.filter(pa.array(~excluded))

        def ends(name: str, known: Words) -> Words:
            return np.concatenate([known, *(edges[f"{end}_{name}"].to_numpy() for end in "ab")])

        old = self.key
        self.key, first = np.unique(ends("key", old), return_index=True)
        self.order = ends("order", self.order)[first]
        self.unit = ends("unit", self.unit)[first]
        now = np.searchsorted(self.key, old)
        a, b = (np.searchsorted(self.key, edges[f"{end}_key"].to_numpy()) for end in "ab")
        known = now[self.pairs >> 32] << 32 | now[self.pairs & 0xFFFFFFFF]
        self.pairs = np.unique(np.concatenate([known, b << 32 | a]))

    def _exclude(self, edges: pa.Table) -> None:
        """Note each newer end, with the oldest of what it must not be near to."""
        keys = np.concatenate([self.near_excluded, edges["b_key"].to_numpy()])
        ages = np.concatenate([self.near_excluded_by, edges["a_order"].to_numpy()])
        by_age = np.lexsort((ages, keys))
        self.near_excluded, first = np.unique(keys[by_age], return_index=True)
        self.near_excluded_by = ages[by_age][first]


def _roots(a: Ints, b: Ints, order: Words) -> Ints:
    """The end of each text's chain of oldest neighbours. Chains lead to older texts: no circles."""
    parent = np.arange(len(order))
    by_age = np.lexsort((order[a], b))
    newer, place = np.unique(b[by_age], return_index=True)
    parent[newer] = a[by_age][place]
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return parent
        parent = above
