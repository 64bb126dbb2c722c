"""Rows of predictions, as the reference and the monitor read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from finsent.monitoring.ranks import Floats

YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Rows:
    """Columns of predictions in the order of time. A column has a value per row."""

    count: int
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)  # label, language, ...
    numbers: Mapping[str, Floats] = field(default_factory=dict)  # confidence, length, ...
    embeddings: Floats | None = None  # shape (rows, dimensions)
    text_keys: Sequence[str] | None = None  # equal for equal texts; for floods of duplicates
    sources: Sequence[str] | None = None  # source tags
    seasons: Sequence[str] | None = None  # of the year or day; see `months`

    def __post_init__(self) -> None:
        columns = {
            **self.categories,
            **self.numbers,
            "embeddings": self.embeddings,
            "text_keys": self.text_keys,
            "sources": self.sources,
            "seasons": self.seasons,
        }
        for name, column in columns.items():
            if column is not None and len(column) != self.count:
                raise ValueError(
                    f"{name}={len(column)} values: {self.count} rows. Give a value per row."
                )
        for name, numbers in {**self.numbers, "embeddings": self.embeddings}.items():
            if numbers is not None and not np.isfinite(numbers).all():
                raise ValueError(f"{name}: a value is not finite. Leave such rows out.")

    def selected(self, indices: Sequence[int]) -> Rows:
        """Return rows by their indices."""
        picked = np.asarray(indices, dtype=np.int64)

        def pick(column: Sequence[str] | None) -> list[str] | None:
            return None if column is None else [column[i] for i in picked]

        return Rows(
            len(picked),
            {name: pick(column) or [] for name, column in self.categories.items()},
            {name: column[picked] for name, column in self.numbers.items()},
            None if self.embeddings is None else self.embeddings[picked],
            pick(self.text_keys),
            pick(self.sources),
            pick(self.seasons),
        )

    def indices_of(self, source: str | None) -> list[int]:
        """Return the indices of the rows of a source; None: of all rows."""
        if source is None:
            return list(range(self.count))
        return [i for i, tag in enumerate(self.sources or []) if tag == source]


def months(times: Sequence[datetime], reference: Sequence[datetime]) -> list[str] | None:
    """Return the month of each time as season; None: the reference is shorter than a year."""
    if not reference or max(reference) - min(reference) < YEAR:
        return None
    return [f"{time.month:02d}" for time in times]
