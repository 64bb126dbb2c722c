"""The labeled rows that the section `evaluate` selects."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from finsent.data.config import SourceConfig
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.evaluation.evaluate import read_benchmark
from finsent.evaluation.held_out_rows import calibration_keys, find_held_out
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.trained_on import TrainedOn, find_dataset

log = logging.getLogger(__name__)

COLUMNS = ["key", "text", "label", "source", "row", "agreement"]


@dataclass(frozen=True)
class Selection:
    """Labeled rows to measure on."""

    rows: pa.Table
    description: str  # e.g. `test split of 0123456789ab`
    version: DatasetVersion | None  # None: rows from files, and the dataset version is not found


def select_rows(setup: EvaluationSetup, trained_on: TrainedOn | None) -> Selection:
    """Read the rows to measure on; by default a split of the dataset that a model was trained on.

    For a model that was trained outside finsent the default is the latest version of `data.name`.

    Raises:
        InputError: the dataset version is not found, or a file is unusable.
    """
    config = setup.evaluate
    version = _find_version(setup, trained_on)
    if config.sources:
        rows = read_benchmark(config.sources, setup.data, setup.workspace.sources_dir)
        return Selection(rows, ", ".join(source_names(config.sources)), version)
    assert version is not None
    rows = version.read(config.split, COLUMNS)
    return Selection(rows, f"{config.split} split of {version.version}", version)


def _find_version(setup: EvaluationSetup, trained_on: TrainedOn | None) -> DatasetVersion | None:
    """Return the dataset version of the rows, or of the baselines where the rows are from files.

    Returns:
        None: the rows are from files, and the model's dataset version is not found.
    """
    config, workspace = setup.evaluate, setup.workspace
    version = find_dataset(workspace, trained_on)
    if not config.dataset and (version is not None or config.sources):
        return version
    origin = trained_on or TrainedOn(setup.data.name, "latest")
    reference = config.dataset or origin.version
    return DatasetVersion.find(reference, workspace.versions(origin.name), "evaluate.dataset")


def source_names(sources: list[SourceConfig]) -> list[str]:
    """Return the names of sources, or else the names of their files."""
    return [source.name or Path(source.uri).name for source in sources]


def without_calibrated(selection: Selection, domain: DomainCalibration) -> Selection:
    """Remove the rows that a calibration was fitted on.

    Near copies remain: a calibration stores keys of its rows, not their texts.

    Raises:
        InputError: no row remains.
    """
    unseen = find_held_out(selection.rows, [calibration_keys(domain)])
    rows = selection.rows.filter(pa.array(unseen.flags))
    if not len(rows):
        raise InputError(
            f"evaluate.calibration={domain.name!r}: was fitted on each of the "
            f"{len(selection.rows)} rows of {selection.description}. Set evaluate.sources to "
            "other files."
        )
    log.info(
        "evaluate: left out %d rows that the calibration %s was fitted on; near copies of its "
        "rows, if any, remain: the calibration stores no texts",
        unseen.counts[0],
        domain.name,
    )
    return replace(selection, rows=rows)
