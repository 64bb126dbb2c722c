"""Self-distillation: rows learn their label and what models predict that have not seen the row.

Labels of financial sentiment are partly wrong and often doubtful: annotators disagreed on about
half of the sentences of Financial PhraseBank. A model that fits all labels learns the noise and
becomes overconfident. So the rows are divided into folds. For each fold, a model is trained on the
other folds and predicts the fold's rows. The final model learns a mixture of each row's own label
and that prediction. Distillation into a model of the same shape is by Furlanello et al. (Born-Again
Neural Networks, arXiv:1805.04770). That the teacher must not have seen the row is cross-fitting, as
in Northcutt et al. (Confident Learning, arXiv:1911.00068).

Ray's processes that only tokenize import this module, so what takes seconds to import (torch,
transformers) is imported inside functions.
"""

from __future__ import annotations

import logging
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.files import staged_dir
from finsent.labels import LABEL2ID, LABELS
from finsent.training.task import Task
from finsent.training.tokens import SPLIT_COLUMNS, tokenize

log = logging.getLogger(__name__)

_ENGINE_ROWS = 4096  # per call of the engine
_MIN_FOLD_ROWS = 10  # per fold, on average


@dataclass(frozen=True)
class FoldFilter:
    """Selects the rows of one fold of a split, or of all other folds."""

    fold: int
    folds: int
    seed: int
    is_inside: bool  # whether to select the fold; else all others

    def select(self, rows: pa.Table) -> pa.Table:
        """Return the selected rows of a table with the column `group`."""
        return rows.filter(pa.array((self._fold_of(rows) == self.fold) == self.is_inside))

    def _fold_of(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        # By group: a model that has seen a near-duplicate of a row would know its label.
        salt = f"fold:{self.seed}:"
        hashes = (zlib.crc32(f"{salt}{group}".encode()) for group in rows["group"].to_pylist())
        return np.fromiter(hashes, np.int64, len(rows)) % self.folds


FitFold = Callable[[Task, DatasetVersion, FoldFilter, Path], Path]


def read_split(
    version: DatasetVersion, split: str, fold_filter: FoldFilter | None
) -> ray.data.Dataset:
    """Return rows of a split with the columns that `tokenize` needs.

    Args:
        fold_filter: which rows; None: all.
    """
    dataset = ray.data.read_parquet([str(file) for file in version.files(split)])
    if fold_filter is None:
        return dataset.select_columns([*SPLIT_COLUMNS])
    return (
        dataset.select_columns([*SPLIT_COLUMNS, "group"])
        .map_batches(fold_filter.select, batch_format="pyarrow")
        .select_columns([*SPLIT_COLUMNS])
    )


def distilled_rows(
    task: Task, version: DatasetVersion, folder: Path, fit_fold: FitFold
) -> ray.data.Dataset:
    """Return the training split with softened targets, materialized, of `TOKENIZED_SCHEMA`.

    A restarted job resumes in the fold in which the job before stopped.

    Args:
        folder: for the folds' targets; seen by all nodes.
        fit_fold: trains a task on the selected rows, in a run's directory, and returns the
            directory of the model.

    Raises:
        InputError: there are too few rows for the number of folds.
    """
    config = task.config
    folds = config.distill_folds
    assert folds is not None, "the caller checks"
    if version.rows("train") < _MIN_FOLD_ROWS * folds:
        raise InputError(
            f"train.distill_folds={folds}: the training split has {version.rows('train')} rows, "
            f"and a fold needs {_MIN_FOLD_ROWS}. Lower train.distill_folds, or set it to null."
        )
    fold_config = config.replaced(distill_folds=None, epochs=config.distill_epochs or config.epochs)
    target_dirs = []
    for fold in range(folds):
        target_dir, run_dir = folder / f"scored_{fold}", folder / f"fold_{fold}"
        target_dirs.append(target_dir)
        if not target_dir.is_dir():
            log.info("self-distillation: model %d of %d, without its fold", fold + 1, folds)
            others = FoldFilter(fold, folds, config.seed, is_inside=False)
            model_dir = fit_fold(replace(task, config=fold_config), version, others, run_dir)
            _write_targets(task, version, replace(others, is_inside=True), model_dir, target_dir)
        shutil.rmtree(run_dir, ignore_errors=True)
    files = [str(file) for path in target_dirs for file in sorted(path.glob("*.parquet"))]
    dataset: ray.data.Dataset = ray.data.read_parquet(files).materialize()
    return dataset


def _write_targets(
    task: Task, version: DatasetVersion, fold_filter: FoldFilter, model_dir: Path, target_dir: Path
) -> None:
    """Write a fold's rows, tokenized, with their targets."""
    config = task.config
    gpus = 1 if ray.cluster_resources().get("GPU", 0) and config.use_gpu != "no" else 0
    with staged_dir(target_dir) as staging:
        read_split(version, "train", fold_filter).map_batches(
            _Teacher,
            batch_format="pyarrow",
            batch_size=_ENGINE_ROWS,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=config.max_workers),
            num_cpus=config.cpus_per_worker,
            num_gpus=gpus,
            fn_constructor_args=(task, model_dir),
        ).write_parquet(str(staging))


class _Teacher:
    """Computes targets of rows that its model has not seen."""

    def __init__(self, task: Task, model_dir: Path) -> None:
        # torch takes 1.2 CPU seconds; see the module's docstring.
        from finsent.inference.config import EngineConfig
        from finsent.inference.engine import Engine

        self._task = task
        self._engine = Engine(model_dir, EngineConfig(threads=task.config.cpus_per_worker))

    def __call__(self, rows: pa.Table) -> pa.Table:
        probabilities = self._engine.probabilities(rows["text"].to_pylist())
        share = self._task.config.distill_share
        targets = soft_targets(rows["label"].to_pylist(), probabilities, share)
        return tokenize(rows, **self._task.tokenizer_arguments, targets=targets)


def soft_targets(
    labels: list[str], probabilities: npt.NDArray[np.float32], share: float
) -> npt.NDArray[np.float32]:
    """Return a mixture of labels and probabilities, shape (rows, labels).

    Args:
        probabilities: shape (rows, labels).
        share: of the probabilities in the mixture, 0 to 1.
    """
    certain = np.eye(len(LABELS), dtype=np.float32)[[LABEL2ID[name] for name in labels]]
    mixed: npt.NDArray[np.float32] = (1 - share) * certain + share * probabilities
    return mixed.astype(np.float32)
