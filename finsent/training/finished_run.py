"""A finished training: its result, its model, and the record that replaces its checkpoints."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finsent.errors import InputError
from finsent.files import sha256_file, staged_dir
from finsent.modeling.model_dir import WEIGHTS, check_model_dir
from finsent.modeling.provenance import read_provenance
from finsent.records import Record
from finsent.runs import CHECKPOINT_PREFIX, MODEL_DIR, TRAINED_FILE
from finsent.training.checkpoint import (
    best_checkpoint,
    find_damage,
    list_checkpoints,
)
from finsent.training.metrics import EpochMetrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A finished training."""

    model_dir: Path  # the best epoch's model
    best: EpochMetrics
    history: list[EpochMetrics]  # of every epoch


class TrainedRecord(Record):
    """`trained.json`: replaces the checkpoints of a finished run."""

    history: list[EpochMetrics]
    sha256: dict[str, str]  # of the model's files, by path


def export_best(run_dir: Path) -> TrainResult:
    """Copy the model of the best valid checkpoint into the run's directory.

    An earlier evaluation is removed: its figures are of another model.
    """
    checkpoints = list_checkpoints(run_dir)
    candidates = [*checkpoints]
    best = best_checkpoint(candidates)
    while find_damage(best.folder) is not None:
        candidates.remove(best)
        best = best_checkpoint(candidates)
    model_dir = run_dir / MODEL_DIR
    for outdated in (model_dir, run_dir / "evaluation"):
        shutil.rmtree(outdated, ignore_errors=True)
    with staged_dir(model_dir) as staging:
        shutil.copytree(best.folder / MODEL_DIR, staging, dirs_exist_ok=True)
    return TrainResult(model_dir, best.metrics, checkpoints[-1].history)


def drop_checkpoints(run_dir: Path) -> None:
    """Replace a finished run's checkpoints by a record that `finished_training` reads.

    The record is written first: after an interrupted removal the run is still finished.
    """
    record_file, checkpoints = run_dir / TRAINED_FILE, list_checkpoints(run_dir)
    if checkpoints and not record_file.is_file():
        best_model = best_checkpoint(checkpoints).folder / MODEL_DIR
        names = [
            path.relative_to(best_model).as_posix()
            for path in sorted(best_model.rglob("*"))
            if path.is_file()
        ]
        digests = {name: sha256_file(run_dir / MODEL_DIR / name) for name in names}
        TrainedRecord(history=checkpoints[-1].history, sha256=digests).write(record_file)
    if not record_file.is_file():
        return  # no checkpoint can be read: a person has to look at all of them
    for path in run_dir.glob(f"{CHECKPOINT_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:  # Ray Train's own record
            path.unlink()


def update_weights_digest(model_dir: Path) -> None:
    """Update a finished run's record after a calibration, which changes the weights."""
    file = model_dir.parent / TRAINED_FILE
    if not file.is_file():
        return
    record, sha256 = TrainedRecord.read(file), sha256_file(model_dir / WEIGHTS)
    if record.sha256.get(WEIGHTS) != sha256:
        digests = {**record.sha256, WEIGHTS: sha256}
        TrainedRecord(history=record.history, sha256=digests).write(file)


def finished_training(
    run_dir: Path, warn: Callable[[str], None] = log.warning
) -> TrainResult | None:
    """Return the training of a run whose record and model are as they were written.

    Args:
        warn: receives the reason why a run with a record must train again.
    """
    file, model_dir = run_dir / TRAINED_FILE, run_dir / MODEL_DIR
    if not file.is_file():
        return None
    try:
        record = TrainedRecord.read(file)
        check_model_dir(model_dir)
        for name, sha256 in record.sha256.items():
            if not (model_dir / name).is_file() or sha256_file(model_dir / name) != sha256:
                raise InputError(f"{model_dir / name}: has changed since training wrote it")
        epoch = read_provenance(model_dir).epoch
        best = next(metrics for metrics in record.history if metrics.epoch == epoch)
    except (InputError, KeyError, StopIteration) as error:
        warn(f"run.name={run_dir.name!r}: its model is damaged. The run trains again ({error})")
        return None
    return TrainResult(model_dir, best, record.history)
