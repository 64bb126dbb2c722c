"""From values to cells: the finite alphabet on which drift is tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from finsent.monitoring.ranks import Floats, Ints

MAX_CATEGORIES = 30  # the other categories of a column share a cell
MIN_BINS, MAX_BINS, ROWS_PER_BIN = 4, 20, 10
MAX_TOPICS, ROWS_PER_TOPIC = 16, 25
DUPLICATE_BLOCK = 25  # consecutive rows among which duplicates are counted
DUPLICATE_EDGES = (0.5, 1.5, 2.5, 4.5, 8.5)


def known_categories(values: Sequence[str]) -> list[str]:
    """Return the most frequent values, in alphabetical order."""
    return sorted(value for value, _ in Counter(values).most_common(MAX_CATEGORIES))


def category_cells(values: Sequence[str], known: Sequence[str]) -> Ints:
    """Return the index of each value; `len(known)` for other values."""
    index = {value: number for number, value in enumerate(known)}
    return np.array([index.get(value, len(known)) for value in values], dtype=np.int64)


def bin_edges(values: Floats) -> list[float]:
    """Return inner edges of bins of about equally many values, without repeated edges."""
    bins = int(np.clip(len(values) // ROWS_PER_BIN, MIN_BINS, MAX_BINS))
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    if len(edges) == 1:  # most values are equal: lower values get a bin of their own
        edges = np.array([np.nextafter(edges[0], -np.inf), edges[0]])
    return [float(edge) for edge in edges]


def bin_cells(values: Floats, edges: Sequence[float]) -> Ints:
    """Return the bin of each value; a value on an edge is in the lower bin."""
    return np.asarray(np.searchsorted(np.asarray(edges), values, side="left").astype(np.int64))


def topic_centroids(embeddings: Floats, seed: int) -> list[list[float]]:
    """Return the centers of topics by k-means: a sketch of the content of bounded size."""
    from scipy.cluster.vq import kmeans2  # 0.3 s; jobs without embeddings do not need it

    count = int(np.clip(len(embeddings) // ROWS_PER_TOPIC, 2, MAX_TOPICS))
    centers, _ = kmeans2(embeddings, count, minit="++", seed=np.random.default_rng(seed))
    return [[float(value) for value in center] for center in centers]


def nearest_topics(embeddings: Floats, centroids: Floats) -> tuple[Ints, Floats]:
    """Return the nearest center of each row, and the distance to the center."""
    squares = (embeddings**2).sum(1)[:, None] + (centroids**2).sum(1)
    distances = squares - 2 * embeddings @ centroids.T
    nearest = distances.argmin(1)
    smallest = distances[np.arange(len(nearest)), nearest]
    return np.asarray(nearest.astype(np.int64)), np.sqrt(np.maximum(smallest, 0.0))


def duplicate_counts(keys: Sequence[str]) -> Floats:
    """Return for each complete block the number of rows whose text is earlier in the block."""
    starts = range(0, len(keys) - DUPLICATE_BLOCK + 1, DUPLICATE_BLOCK)
    return np.array(
        [DUPLICATE_BLOCK - len(set(keys[start : start + DUPLICATE_BLOCK])) for start in starts],
        dtype=np.float64,
    )
