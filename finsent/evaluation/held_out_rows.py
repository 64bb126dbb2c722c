"""Rows that a model has used, and the rows of a measurement that it has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from finsent.evaluation.training_overlap import Flags, TrainingRows, known
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.trained_on import TrainedOn, find_dataset
from finsent.workspace import Workspace

Keys: TypeAlias = pa.ChunkedArray  # of rows: hashes of their texts


@dataclass(frozen=True)
class HeldOutRows:
    """The rows of a measurement that no set of keys holds."""

    flags: Flags  # for each row
    counts: list[int | None]  # rows by set of keys that the set holds; None: the set is not known


def find_held_out(rows: pa.Table, key_sets: Sequence[Keys | None]) -> HeldOutRows:
    """Find the rows that no set of keys holds.

    Args:
        rows: with a `key` column.
        key_sets: keys of used rows; None: they are not known.
    """
    flags, counts = np.ones(len(rows), bool), list[int | None]()
    for keys in key_sets:
        if keys is None:
            counts.append(None)
            continue
        is_used = known(rows, keys)
        counts.append(int(is_used.sum()))
        flags &= ~is_used
    return HeldOutRows(flags, counts)


def training_rows(workspace: Workspace, trained_on: TrainedOn | None) -> TrainingRows:
    """Return the rows that a model was trained on, or why they are not known.

    Args:
        trained_on: None: the model was trained elsewhere.
    """
    if trained_on is None:
        return TrainingRows()
    version = find_dataset(workspace, trained_on)
    if version is None:
        folder = workspace.versions_dir(trained_on.name)
        return TrainingRows(None, f"dataset version {trained_on.version} is not in {str(folder)!r}")
    return TrainingRows(version.read("train", ["key", "text"]), None)


def training_keys(training: TrainingRows) -> Keys | None:
    """Return the keys of the rows that a model was trained on; None: they are not known."""
    return None if training.rows is None else training.rows["key"]


def validation_keys(workspace: Workspace, trained_on: TrainedOn | None) -> Keys | None:
    """Return the keys of the rows that chose a model's epoch and fitted its calibration.

    Args:
        trained_on: None: the model was trained elsewhere.

    Returns:
        None: the rows are not known.
    """
    version = find_dataset(workspace, trained_on)
    return None if version is None else version.read("validation", ["key"]).column("key")


def calibration_keys(domain: DomainCalibration) -> Keys:
    """Return the keys of the rows that a calibration for a domain was fitted on."""
    return pa.chunked_array([pa.array(domain.keys, pa.string())])
