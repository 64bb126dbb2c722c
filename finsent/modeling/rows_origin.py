"""The origin of the labeled rows that a step of a model used, as far as it is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class RowsOrigin(TypedDict, total=False):
    """Dataset version and split, or labeled files, for records."""

    dataset_version: str | None
    split: str | None
    sources: Sequence[str]
