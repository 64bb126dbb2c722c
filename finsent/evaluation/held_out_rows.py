"""Held-out rows: rows that a model was not trained, validated or calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from finsent.evaluation.training_overlap import Flags, TrainingRows, has_key_in
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.trained_on import TrainedOn, find_dataset
from finsent.workspace import Workspace

Keys: TypeAlias = pa.ChunkedArray  # of rows: hashes of their texts


@dataclass(frozen=True)
class HeldOutRows:
    """The rows whose keys are in no set of used keys."""

    flags: Flags  # for each row
    counts: list[int | None]  # rows that each set contains; None: the set is not known


def find_held_out(rows: pa.Table, key_sets: Sequence[Keys | None]) -> HeldOutRows:
    """Find the rows whose keys are in no set of used keys.

    Args:
        rows: with a `key` column.
        key_sets: keys of used rows; None: not known.
    """
    flags, counts = np.ones(len(rows), bool), list[int | None]()
    for keys in key_sets:
        if keys is None:
            counts.append(None)
            continue
        is_used = has_key_in(rows, keys)
        counts.append(int(is_used.sum()))
        flags &= ~is_used
    return HeldOutRows(flags, counts)


def training_rows(workspace: Workspace, trained_on: TrainedOn | None) -> TrainingRows:
    """Return the rows that a model was trained on, or the reason why they are not known.

    Args:
        trained_on: None: the model was trained outside finsent.
    """
    if trained_on is None:
        return TrainingRows()
    version = find_dataset(workspace, trained_on)
    if version is None:
        folder = workspace.versions(trained_on.name)
        return TrainingRows(None, f"dataset version {trained_on.version} is not in {str(folder)!r}")
    return TrainingRows(version.read("train", ["key", "text"]), None)


def training_keys(training: TrainingRows) -> Keys | None:
    """Return the keys of the rows that a model was trained on; None: not known."""
    return None if training.rows is None else training.rows["key"]


def validation_keys(workspace: Workspace, trained_on: TrainedOn | None) -> Keys | None:
    """Return the keys of a model's validation rows, which chose its epoch and its calibration.

    Args:
        trained_on: None: the model was trained outside finsent.

    Returns:
        None: the rows are not known.
    """
    version = find_dataset(workspace, trained_on)
    return None if version is None else version.read("validation", ["key"]).column("key")


def calibration_keys(domain: DomainCalibration) -> Keys:
    """Return the keys of the rows that a calibration for a domain was fitted on."""
    return pa.chunked_array([pa.array(domain.keys, pa.string())])
