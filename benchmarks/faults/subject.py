"""What the faults are planted under: a dataset and a model, which the nodes share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Subject:
    """A dataset and a model below a storage root."""

    root: Path  # absolute
    dataset: str
    model: str  # of the root's registry
