"""The dataset version that a model was trained on, as its provenance names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finsent.errors import InputError
from finsent.modeling.layout import PROVENANCE, REMEDY, read_provenance


@dataclass(frozen=True)
class TrainedOn:
    """A dataset version that a model was trained on."""

    name: str  # of the dataset
    version: str


def read_trained_on(model_dir: Path) -> TrainedOn | None:
    """Return the dataset version that a model was trained on; None: it was trained elsewhere.

    Raises:
        InputError: the model's provenance is missing or damaged.
    """
    provenance, file = read_provenance(model_dir), model_dir / PROVENANCE
    if "dataset" not in provenance:
        raise InputError(f"{file}: dataset is missing; {REMEDY}")
    dataset = provenance["dataset"]
    if dataset is None:
        return None
    try:
        return TrainedOn(str(dataset["name"]), str(dataset["version"]))
    except (KeyError, TypeError):
        raise InputError(f"{file}: dataset={dataset!r} has no name and version; {REMEDY}") from None
