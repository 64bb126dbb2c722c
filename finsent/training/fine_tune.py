"""Fine-tune a backbone on a dataset version, and calibrate the model of the best epoch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from finsent.data.versions.dataset import DatasetVersion
from finsent.inference.truncation_record import TruncationRecord
from finsent.modeling.backbone import Backbone, resolve_backbone
from finsent.modeling.rows_origin import RowsOrigin
from finsent.ray_session import check_training_shared
from finsent.settings import Settings
from finsent.training.checkpoint_mirror import CheckpointMirror
from finsent.training.config import OPERATIONAL, TrainConfig
from finsent.training.frontends.check import check_trainer
from finsent.training.metrics import EpochMetrics
from finsent.training.task import make_task

if TYPE_CHECKING:
    from finsent.modeling.calibration import CalibrationRecord

log = logging.getLogger(__name__)

# Settings that decide what a training makes: a run resumes only with the same values.
RECIPE = (
    "data",
    "model",
    *(f"train.{name}" for name in TrainConfig.model_fields if name not in OPERATIONAL),
)


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model. Figures are of the best epoch on the validation split."""

    dataset_version: str
    model_dir: str
    epoch: Annotated[int, "the best"]
    macro_f1: float
    macro_over: Annotated[list[str], "labels with rows"]
    accuracy: float
    split: Annotated[str, "that the figures are of"]
    truncation: Annotated[
        TruncationRecord, "texts of the training split that are cut, tokens left out"
    ]
    rows_per_second: float
    tokens_per_second: float
    padding_share: Annotated[float, "of the last epoch"]
    temperature: float | None
    ece: Annotated[float, "after calibration"]
    threshold: Annotated[
        float | None, "after calibration; null: none reaches evaluate.wanted_accuracy"
    ]
    history: Annotated[list[EpochMetrics], "by epoch"]


def prepare_backbone(settings: Settings) -> Backbone:
    """Check the trainer and find the backbone. Needs no Ray.

    Raises:
        InputError: the trainer's package is not installed, or the backbone is unusable.
    """
    check_trainer(settings.train)
    backbone = resolve_backbone(settings.model, settings.workspace.backbones_dir)
    if not backbone.is_built_in:
        from finsent.modeling.classifier import inspect_backbone  # PyTorch: 2 s

        for note in inspect_backbone(backbone, settings.model.max_length):
            log.warning("%s", note)
    return backbone


def fine_tune(
    settings: Settings,
    backbone: Backbone,
    version: DatasetVersion,
    run_dir: Path,
    title: str = "train",
) -> FineTuned:
    """Train on a running Ray, and calibrate the model of the best epoch.

    Args:
        title: of the progress bar.
    """
    # PyTorch and Ray: 3 s; wrong settings fail before.
    from finsent.evaluation.calibration import fitted_temperature
    from finsent.training.ray_trainer import fit
    from finsent.training.split_summary import summarize_splits

    config = settings.train
    check_training_shared(settings)
    log.info(
        "train: %s on dataset %s, %d rows, %d epochs, %d worker(s)",
        backbone.name,
        version.version,
        version.rows("train"),
        config.epochs,
        config.max_workers,
    )
    task = make_task(config, settings.model, backbone, version)
    splits = summarize_splits(version, task)
    for remark in splits.remarks():
        log.warning("train: %s", remark)
    mirror = CheckpointMirror.of_run(settings.workspace, run_dir)
    trained = fit(task, version, run_dir, title=title, mirror=mirror)
    calibration = calibrate_model(settings, trained.model_dir, version)
    assert calibration.ece_after is not None  # None: of a calibration of other programs
    best, last = trained.best, trained.history[-1]
    return FineTuned(
        dataset_version=version.version,
        model_dir=str(trained.model_dir),
        epoch=best.epoch,
        macro_f1=best.macro_f1,
        macro_over=splits.macro_over,
        accuracy=best.accuracy,
        split="validation",
        truncation=splits.truncation,
        rows_per_second=last.rows_per_second,
        tokens_per_second=last.tokens_per_second,
        padding_share=last.padding_share,
        temperature=fitted_temperature(calibration),
        ece=calibration.ece_after,
        threshold=calibration.abstention.threshold,
        history=trained.history,
    )


def calibrate_model(
    settings: Settings, model_dir: Path, version: DatasetVersion
) -> CalibrationRecord:
    """Fit temperature and abstention threshold on the validation split. Needs no Ray.

    Returns:
        The record that `finsent.evaluation.calibration.calibrate` writes.
    """
    # PyTorch: 2 s; wrong settings fail before.
    from finsent.evaluation.calibration import calibrate, calibration_line
    from finsent.inference.engine import Engine
    from finsent.training.finished_run import update_weights_digest

    rows = version.read("validation", ["text", "label"])
    origin: RowsOrigin = {"dataset_version": version.version, "split": "validation"}
    log.info("calibrate: %s on %d rows of the validation split", model_dir, len(rows))
    engine = Engine(model_dir, settings.engine.exact())
    calibration = calibrate(engine, rows, settings.evaluate.wanted_accuracy, origin)
    update_weights_digest(model_dir)
    log.info("%s", calibration_line(calibration))
    return calibration
