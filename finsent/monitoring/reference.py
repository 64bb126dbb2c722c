"""The reference: what predictions look like without drift, in a small JSON file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from finsent.errors import InputError
from finsent.monitoring.cells import (
    DUPLICATE_EDGES,
    bin_cells,
    bin_edges,
    category_cells,
    duplicate_counts,
    known_categories,
    nearest_topics,
    topic_centroids,
)
from finsent.monitoring.ranks import Floats, Ints
from finsent.monitoring.rows import Rows
from finsent.monitoring.tilts import Shape
from finsent.records import Record

MIN_ROWS = 200
MIN_SEASON_ROWS = 100
FIT_SHARE = 0.2  # of the rows, which define cells and bets and are not part of the test
MIN_FIT_ROWS = 60
SMOOTHING = 0.5  # rows added to each cell of the nominal shares
POOLED_ROWS = 20.0  # weight of all seasons in the nominal shares of one season
RANK_PARTS = 20
MAX_FEW = 3  # known categories
DUPLICATES, TOPIC, NOVELTY, SOURCE = "duplicates", "topic", "novelty", "source"

Kind = Literal["categories", "numbers", "topic", "novelty", "duplicates", "source"]


class SignalReference(Record):
    """Reference of one signal of one source."""

    signal: str
    source: str | None  # None: all sources
    kind: Kind
    shape: Shape
    names: list[str]  # of the cells, in order
    edges: list[float]  # of numbers: inner edges of the bins
    nominal: list[list[float]]  # by season: shares of the cells, or of equal parts of the ranks
    counts: list[list[int]]  # the other rows of the reference, by season and cell

    def values_to_cells(self, rows: Rows, centroids: Floats) -> Ints:
        """Return the cell of each row; for duplicates, of each complete block of rows."""
        if self.kind == "categories":
            return category_cells(rows.categories[self.signal], self.names[:-1])
        if self.kind == "source":
            return category_cells(rows.sources or [], self.names[:-1])
        if self.kind == "numbers":
            return bin_cells(rows.numbers[self.signal], self.edges)
        if self.kind == "duplicates":
            return bin_cells(duplicate_counts(rows.text_keys or []), self.edges)
        assert rows.embeddings is not None
        topics, distances = nearest_topics(rows.embeddings, centroids)
        return topics if self.kind == "topic" else bin_cells(distances, self.edges)


class Profile(Record):
    """Reference of all signals. Build it by `build_profile`."""

    schema_version: Literal[1] = 1
    rows: int
    signals: list[SignalReference]
    centroids: list[list[float]]  # of topics
    seasons: list[str]  # empty: one reference for the complete year

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a file that is not a profile."""
        return "Build the reference again."

    def strata(self, rows: Rows) -> Ints:
        """Return the stratum of each row: its season, or a last one for unknown seasons."""
        if not self.seasons:
            return np.zeros(rows.count, dtype=np.int64)
        return category_cells(rows.seasons or [], self.seasons)


def check_columns(profile: Profile, rows: Rows) -> None:
    """Refuse rows that lack a column of the reference, or have embeddings of another encoder.

    Raises:
        InputError: names the column.
    """
    given = {
        *rows.categories,
        *rows.numbers,
        *([TOPIC, NOVELTY] if rows.embeddings is not None else []),
        *([DUPLICATES] if rows.text_keys is not None else []),
        *([SOURCE] if rows.sources is not None else []),
    }
    missing = sorted({signal.signal for signal in profile.signals} - given)
    if profile.seasons and rows.seasons is None:
        missing.append("seasons")
    if missing:
        raise InputError(
            f"{missing[0]}=null: the reference has this column. Give a value for each row."
        )
    if profile.centroids and rows.embeddings is not None:
        given_size, size = rows.embeddings.shape[1], len(profile.centroids[0])
        if given_size != size:
            raise InputError(
                f"embeddings={given_size} dimensions: the reference has {size}. Use the encoder of "
                "the reference, or build the reference again."
            )


def build_profile(rows: Rows, seed: int = 0) -> Profile:
    """Build the reference of all columns, for all rows together and for each source.

    A source needs MIN_ROWS rows. Seasons are used if each has MIN_SEASON_ROWS rows. A random part
    of the rows defines cells and bets. The test compares the stream with the other rows only.

    Args:
        rows: predictions without drift: of a dataset version, an evaluation, or the log.
        seed: of the random part and of the topics.
    """
    if rows.count < MIN_ROWS:
        raise InputError(
            f"reference={rows.count} rows: at least {MIN_ROWS} are needed. Use more rows."
        )
    random = np.random.default_rng(seed)
    seasons = _seasons(rows)
    builder = _Builder(rows, seasons, random)
    fit, _ = builder.split(None)
    if fit.embeddings is not None:
        builder.centroids = topic_centroids(fit.embeddings, seed)
    known = [tag for tag in known_categories(rows.sources or []) if tag]
    signals = list(builder.signals(None))
    for tag in known:
        if len(known) > 1 and len(rows.indices_of(tag)) >= MIN_ROWS:
            signals += builder.signals(tag)
    return Profile(rows=rows.count, signals=signals, centroids=builder.centroids, seasons=seasons)


def _seasons(rows: Rows) -> list[str]:
    seasons = rows.seasons or []
    known = known_categories(seasons)
    counts = np.bincount(category_cells(seasons, known), minlength=len(known))
    is_large = len(known) > 1 and bool((counts[: len(known)] >= MIN_SEASON_ROWS).all())
    return known if is_large else []


class _Builder:
    """Builds the signals of one part of the rows after the other."""

    def __init__(self, rows: Rows, seasons: list[str], random: np.random.Generator):
        self.rows = rows
        self.seasons = seasons
        self.centroids: list[list[float]] = []
        seed = int(random.integers(2**31))
        self._order = np.random.default_rng(seed).permutation(rows.count)
        self._topic_rows = _fit_count(rows.count)  # the first in the order define the topics

    def split(self, source: str | None) -> tuple[Rows, Rows]:
        """Return the rows that define cells and bets, and the rows of the test, in order.

        No row that defines the topics is a row of any test: such a row is nearer to its topic than
        a row of the stream, which `novelty` would take for drift.
        """
        is_part = np.zeros(self.rows.count, dtype=bool)
        is_part[self.rows.indices_of(source)] = True
        order = self._order[is_part[self._order]]
        topic_rows = int(is_part[self._order[: self._topic_rows]].sum())
        fit_count = max(_fit_count(len(order)), topic_rows)
        return (
            self.rows.selected(sorted(order[:fit_count])),
            self.rows.selected(sorted(order[fit_count:])),
        )

    def signals(self, source: str | None) -> Iterable[SignalReference]:
        """Yield the references of all columns."""
        fit, test = self.split(source)
        for name, values in fit.categories.items():
            yield self._signal(name, source, "categories", known_categories(values), [], fit, test)
        for name, numbers in fit.numbers.items():
            yield self._signal(name, source, "numbers", [], bin_edges(numbers), fit, test)
        if fit.embeddings is not None:
            names = [f"topic {number}" for number in range(len(self.centroids))]
            yield self._signal(TOPIC, source, "topic", names, [], fit, test)
            _, distances = nearest_topics(fit.embeddings, np.array(self.centroids))
            yield self._signal(NOVELTY, source, "novelty", [], bin_edges(distances), fit, test)
        if self.rows.text_keys is not None:
            yield self._duplicates(self.rows.selected(self.rows.indices_of(source)), source)
        if self.rows.sources is not None and source is None:
            known = known_categories(self.rows.sources)
            yield self._signal(SOURCE, source, "source", known, [], fit, test)

    def _signal(
        self,
        name: str,
        source: str | None,
        kind: Kind,
        names: list[str],
        edges: list[float],
        fit: Rows,
        test: Rows,
    ) -> SignalReference:
        shape: Shape = "ordered" if edges else "few" if len(names) <= MAX_FEW else "many"
        if kind in ("categories", "source"):
            names = [*names, "other"]
        if edges:
            names = bin_names(edges)
        draft = SignalReference(
            signal=name,
            source=source,
            kind=kind,
            shape="many" if kind == "topic" else shape,
            names=names,
            edges=edges,
            nominal=[],
            counts=[],
        )
        counts = self._table(draft, test)
        is_ordered = draft.shape == "ordered"
        nominal = uniform_shares(len(counts)) if is_ordered else _nominal(self._table(draft, fit))
        return draft.replaced(nominal=nominal.tolist(), counts=counts.tolist())

    def _table(self, signal: SignalReference, rows: Rows) -> Ints:
        """Return counts by stratum and cell."""
        cells = signal.values_to_cells(rows, np.array(self.centroids))
        strata = np.zeros(rows.count, dtype=np.int64)
        if self.seasons:
            strata = category_cells(rows.seasons or [], self.seasons)
        table = np.zeros((len(self.seasons) + 1 if self.seasons else 1, len(signal.names)), int)
        np.add.at(table, (strata, cells), 1)
        return table

    def _duplicates(self, rows: Rows, source: str | None) -> SignalReference:
        """Return the reference of duplicates, whose unit is a block of consecutive rows.

        The cells are fixed, so no block is needed to define the cells.
        """
        edges = list(DUPLICATE_EDGES)
        cells = bin_cells(duplicate_counts(rows.text_keys or []), edges)
        return SignalReference(
            signal=DUPLICATES,
            source=source,
            kind="duplicates",
            shape="ordered",
            names=bin_names(edges),
            edges=edges,
            nominal=uniform_shares(1).tolist(),
            counts=[np.bincount(cells, minlength=len(edges) + 1).tolist()],
        )


def _fit_count(rows: int) -> int:
    return max(MIN_FIT_ROWS, round(FIT_SHARE * rows))


def bin_names(edges: Sequence[float]) -> list[str]:
    """Return the names of the bins between edges."""
    bounds = [f"{edge:.3g}" for edge in edges]
    inner = [f"{low} to {high}" for low, high in pairwise(bounds)]
    return [f"at most {bounds[0]}", *inner, f"above {bounds[-1]}"]


def uniform_shares(strata: int) -> Floats:
    """Return equal parts of the ranks: bets on ordered cells need no shares of the cells."""
    return np.full((strata, RANK_PARTS), 1 / RANK_PARTS)


def _nominal(counts: Ints | Floats) -> Floats:
    """Return positive shares by stratum and cell from counts."""
    smoothed = counts.sum(0) + SMOOTHING
    pooled = smoothed / smoothed.sum()
    rows = counts + POOLED_ROWS * pooled
    return np.asarray(rows / rows.sum(-1, keepdims=True))
