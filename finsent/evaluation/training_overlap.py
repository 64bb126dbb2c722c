"""Overlap of evaluated rows with a model's training rows, exact or as near copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from finsent.data.config import NearConfig
from finsent.data.ingest.near import entries, find_edges
from finsent.evaluation.metrics import Ids
from finsent.metrics_record import OverlapCounts

Flags = npt.NDArray[np.bool_]

MAX_NEAR_ROWS = 50_000  # evaluated plus training rows: 3 CPU seconds and 420 MB


@dataclass(frozen=True)
class TrainingRows:
    """The rows that a model was trained on, where known."""

    rows: pa.Table | None = None  # `key` and `text`; None: not known
    reason: str | None = "the model was trained elsewhere"  # why the rows are not known


@dataclass(frozen=True)
class Overlap:
    """Evaluated rows that a model was trained on."""

    exact: Flags | None  # None: not known
    near: Flags | None  # near copies that are not exact; None: not searched
    reason: str | None = None  # why `exact` or `near` is None

    @property
    def seen(self) -> Flags | None:
        """Exact and near rows; None: not known."""
        if self.exact is None or self.near is None:
            return self.exact
        return self.exact | self.near

    def counts(self) -> OverlapCounts:
        """Return the counts and the reason."""
        return OverlapCounts(
            rows=None if self.exact is None else int(self.exact.sum()),
            near_copies=None if self.near is None else int(self.near.sum()),
            reason=self.reason,
        )


def has_key_in(rows: pa.Table, keys: pa.ChunkedArray) -> Flags:
    """Return for each row whether its key is among the keys."""
    flags: Flags = pc.is_in(rows["key"], keys).to_numpy().astype(bool)
    return flags


def find_overlap(rows: pa.Table, training: TrainingRows, config: NearConfig) -> Overlap:
    """Find the evaluated rows that a model was trained on.

    Args:
        rows: evaluated rows with `key` and `text`.
        config: how near copies are found.
    """
    if training.rows is None:
        return Overlap(None, None, training.reason)
    exact = has_key_in(rows, training.rows["key"])
    if not config.enabled:
        return Overlap(exact, None, "near copies: data.near_duplicates.enabled=false")
    if len(rows) + len(training.rows) > MAX_NEAR_ROWS:
        return Overlap(exact, None, f"near copies: over {MAX_NEAR_ROWS:,} rows to compare")
    near = near_copies(rows["text"], training.rows["text"], config)
    return Overlap(exact, near & ~exact)


def near_copies(texts: pa.ChunkedArray, others: pa.ChunkedArray, config: NearConfig) -> Flags:
    """Return for each text whether one of the other texts differs in a few words at most."""
    all_texts = pa.chunked_array([*others.chunks, *texts.chunks], pa.string())
    edges = _near_pairs(all_texts, len(others), config)
    flags = np.zeros(len(all_texts), bool)
    flags[edges.filter(edges["a_excluded"])["b_key"].to_numpy()] = True
    return flags[len(others) :]


def near_groups(texts: pa.ChunkedArray, config: NearConfig) -> Ids:
    """Return the group of each text, from 0: near copies share a group, transitively.

    Args:
        config: where disabled, each text is a group.
    """
    if not config.enabled:
        return np.arange(len(texts))
    edges = _near_pairs(texts, 0, config)
    endpoints = tuple(edges[name].to_numpy().astype(np.int64) for name in ("a_key", "b_key"))
    pairs = coo_array((np.ones(len(edges), bool), endpoints), (len(texts), len(texts)))
    groups: Ids = connected_components(pairs, directed=False)[1].astype(np.int64)
    return groups


def _near_pairs(texts: pa.ChunkedArray, excluded: int, config: NearConfig) -> pa.Table:
    """Return pairs of near texts in the schema `EDGES`; the keys are row numbers.

    Args:
        excluded: number of first texts that are compared with later texts, not with each other.
    """
    numbers = np.arange(len(texts), dtype=np.uint64)
    columns = dict.fromkeys(("key", "order", "unit"), numbers)
    table = pa.table({**columns, "excluded": numbers < excluded, "text": texts})
    return find_edges(entries(table, config), config)
