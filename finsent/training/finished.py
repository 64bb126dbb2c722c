"""A finished training without its checkpoints: a record that replaces them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.files import read_json, sha256_file, write_json
from finsent.modeling.model_dir import WEIGHTS, check_model_dir
from finsent.modeling.provenance import read_provenance
from finsent.runs import TRAINED
from finsent.training.checkpoint import MODEL, PREFIX, best_checkpoint, saved_checkpoints

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A finished training run."""

    model_dir: Path  # the best epoch's model
    best: dict[str, Any]  # its metrics
    history: list[dict[str, Any]]  # metrics of every epoch


def drop_checkpoints(run_dir: Path) -> None:
    """Replace a finished run's checkpoints by a record, with which `finished_training` works.

    The record is written first: an interrupted removal leaves a run that is finished.
    """
    record, checkpoints = run_dir / TRAINED, saved_checkpoints(run_dir)
    if checkpoints and not record.is_file():
        trained = best_checkpoint(checkpoints).folder / MODEL
        digests = {
            path.relative_to(trained).as_posix(): sha256_file(
                run_dir / MODEL / path.relative_to(trained)
            )
            for path in sorted(trained.rglob("*"))
            if path.is_file()
        }
        write_json(record, {"history": checkpoints[-1].history, "sha256": digests})
    if not record.is_file():
        return  # no checkpoint can be read: leave all for a person to look at
    for path in run_dir.glob(f"{PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:  # Ray Train's own record
            path.unlink()


def record_weights(model_dir: Path) -> None:
    """Bring a run's record up to date after a calibration, which changes the weights."""
    path = model_dir.parent / TRAINED
    if not path.is_file():
        return
    record, sha256 = read_json(path), sha256_file(model_dir / WEIGHTS)
    if record["sha256"].get(WEIGHTS) != sha256:
        write_json(path, {**record, "sha256": {**record["sha256"], WEIGHTS: sha256}})


def finished_training(
    run_dir: Path, warn: Callable[[str], None] = log.warning
) -> TrainResult | None:
    """Return a run's training where its record and its model are as they were written.

    Args:
        warn: receives the reason why a run with a record must train anew.
    """
    path, model_dir = run_dir / TRAINED, run_dir / MODEL
    if not path.is_file():
        return None
    try:
        record = read_json(path)
        check_model_dir(model_dir)
        for name, sha256 in record["sha256"].items():
            if not (model_dir / name).is_file() or sha256_file(model_dir / name) != sha256:
                raise InputError(f"{model_dir / name}: is not as training wrote it")
        epoch = read_provenance(model_dir).epoch
        best = next(metrics for metrics in record["history"] if metrics["epoch"] == epoch)
        return TrainResult(model_dir, best, record["history"])
    except (InputError, AttributeError, KeyError, TypeError, StopIteration) as error:
        warn(f"run.name={run_dir.name!r}: its model is damaged; it is trained anew ({error})")
        return None
