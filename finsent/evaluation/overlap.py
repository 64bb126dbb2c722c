"""Which of the evaluated rows a model was trained on, exactly or nearly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finsent.data.config import NearConfig
from finsent.data.near import entries, find_edges

Flags = npt.NDArray[np.bool_]

MAX_NEAR_ROWS = 50_000  # evaluated and training rows together: 3 CPU seconds and 420 MB


@dataclass(frozen=True)
class TrainingRows:
    """The rows that a model was trained on, as far as they are known."""

    rows: pa.Table | None = None  # `key` and `text`; None: not known, for this reason
    reason: str | None = "the model was trained elsewhere"


@dataclass(frozen=True)
class Overlap:
    """Evaluated rows that a model was trained on."""

    exact: Flags | None  # None: not known
    near: Flags | None  # near copies that are not exact; None: not looked for
    reason: str | None = None  # why one of them is not known

    @property
    def seen(self) -> Flags | None:
        """Exact and near rows; None: not known."""
        if self.exact is None or self.near is None:
            return self.exact
        return self.exact | self.near

    def record(self) -> dict[str, Any]:
        """Return the counts and the reason, JSON-able."""
        return {
            "rows": None if self.exact is None else int(self.exact.sum()),
            "near_copies": None if self.near is None else int(self.near.sum()),
            "reason": self.reason,
        }


def known(rows: pa.Table, keys: pa.ChunkedArray) -> Flags:
    """Return for each row whether its key is among these."""
    flags: Flags = pc.is_in(rows["key"], keys).to_numpy().astype(bool)
    return flags


def find_overlap(rows: pa.Table, training: TrainingRows, config: NearConfig) -> Overlap:
    """Find the rows that a model was trained on.

    Args:
        rows: evaluated rows with `key` and `text`.
        config: how near copies are found.
    """
    if training.rows is None:
        return Overlap(None, None, training.reason)
    exact = known(rows, training.rows["key"])
    if not config.enabled:
        return Overlap(exact, None, "near copies: data.near_duplicates.enabled=false")
    if len(rows) + len(training.rows) > MAX_NEAR_ROWS:
        return Overlap(exact, None, f"near copies: over {MAX_NEAR_ROWS:,} rows to compare")
    near = near_copies(rows["text"], training.rows["text"], config)
    return Overlap(exact, near & ~exact)


def near_copies(texts: pa.ChunkedArray, others: pa.ChunkedArray, config: NearConfig) -> Flags:
    """Return for each text whether another one differs from it in a few words at most."""
    both = pa.chunked_array([*others.chunks, *texts.chunks], pa.string())
    numbers = np.arange(len(both), dtype=np.uint64)
    table = pa.table(
        {
            "key": numbers,
            "order": numbers,
            "unit": numbers,
            "excluded": numbers < len(others),  # compared with each text, not with each other
            "text": both,
        }
    )
    edges = find_edges(entries(table, config), config)
    flags = np.zeros(len(both), bool)
    flags[edges.filter(edges["a_excluded"])["b_key"].to_numpy()] = True
    return flags[len(others) :]
