"""The dataset version that a model was trained on, as its provenance names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.modeling.model_dir import PROVENANCE, REMEDY
from finsent.modeling.provenance import read_provenance
from finsent.workspace import Workspace


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
    if "dataset" not in provenance.model_fields_set:
        raise InputError(f"{file}: dataset is missing. {REMEDY}")
    dataset = provenance.dataset
    return None if dataset is None else TrainedOn(dataset.name, dataset.version)


def find_dataset(workspace: Workspace, trained_on: TrainedOn | None) -> DatasetVersion | None:
    """Return the dataset version that a model was trained on.

    Args:
        trained_on: None: the model was trained elsewhere.

    Returns:
        None: the model was trained elsewhere, or the version is no longer in the workspace.

    Raises:
        InputError: the version is damaged.
    """
    if trained_on is None:
        return None
    return DatasetVersion.at(workspace.versions(trained_on.name) / trained_on.version)
