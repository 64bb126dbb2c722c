"""Self-distillation: rows learn, beside their label, what models say that have not seen them.

Labels of financial sentiment are partly wrong and often doubtful: of Financial PhraseBank's
sentences about half divided their annotators. A model that fits them all learns the noise and is
too sure of itself. So the rows are dealt into folds, a model is trained without each fold and
labels it, and the last model learns a mixture of a row's own label and of that probability.
Distillation into a model of the same shape is of Furlanello et al. (Born-Again Neural Networks,
arXiv:1805.04770); that the teacher must not have seen the row is cross-fitting, as in Northcutt et
al. (Confident Learning, arXiv:1911.00068).

Ray's helper processes import this module, too: no torch up here.
"""

from __future__ import annotations

import logging
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.files import staged_dir
from finsent.training.task import Task

log = logging.getLogger(__name__)

_BATCH = 4096  # rows that an engine gets at once
_LEAST = 10  # rows a fold, on average


@dataclass(frozen=True)
class Part:
    """One fold of a split, or all others."""

    fold: int
    folds: int
    seed: int
    inside: bool

    def of(self, rows: pa.Table) -> pa.Table:
        """Those of some rows that belong to it; they have a column `group`."""
        return rows.filter(pa.array((self._dealt(rows) == self.fold) == self.inside))

    def _dealt(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        # By group: a model that has seen a near-duplicate of a row would know its label.
        salt = f"fold:{self.seed}:"
        found = (zlib.crc32(f"{salt}{group}".encode()) for group in rows["group"].to_pylist())
        return np.fromiter(found, np.int64, len(rows)) % self.folds


FitFold = Callable[[Task, DatasetVersion, Part, Path], Path]


def rows_of(version: DatasetVersion, split: str, part: Part | None) -> Any:
    """Rows of a split as a Ray dataset, with the columns that `tokenize` wants."""
    from finsent.training.tokens import COLUMNS

    dataset = ray.data.read_parquet([str(file) for file in version.files(split)])
    if part is None:
        return dataset.select_columns([*COLUMNS])
    chosen = dataset.select_columns([*COLUMNS, "group"])
    return chosen.map_batches(part.of, batch_format="pyarrow").select_columns([*COLUMNS])


def distilled(task: Task, version: DatasetVersion, folder: Path, fit_fold: FitFold) -> Any:
    """The training split with softened targets, a materialized Ray dataset of schema `TOKENISED`.

    A job that is started again goes on in the fold where it stopped.

    Args:
        folder: what the folds say is kept here; seen by all nodes.
        fit_fold: trains a task on a part of the training split, into a run's directory, and returns
            the model's.

    Raises:
        InputError: there are too few rows for so many folds.
    """
    config = task.config
    folds = config.distill_folds
    assert folds is not None, "asked for by the caller"
    if version.rows("train") < _LEAST * folds:
        raise InputError(
            f"train.distill_folds={folds}: the training split has {version.rows('train')} rows, "
            f"and a fold needs {_LEAST}; lower it, or set it to null"
        )
    own = config.replaced(distill_folds=None, epochs=config.distill_epochs or config.epochs)
    scored = []
    for fold in range(folds):
        out, run_dir = folder / f"scored_{fold}", folder / f"fold_{fold}"
        scored.append(out)
        if not out.is_dir():
            log.info("self-distillation: model %d of %d, without its fold", fold + 1, folds)
            others = Part(fold, folds, config.seed, inside=False)
            model_dir = fit_fold(replace(task, config=own), version, others, run_dir)
            _score(task, version, replace(others, inside=True), model_dir, out)
        shutil.rmtree(run_dir, ignore_errors=True)
    files = [str(file) for out in scored for file in sorted(out.glob("*.parquet"))]
    return ray.data.read_parquet(files).materialize()


def _score(task: Task, version: DatasetVersion, part: Part, model_dir: Path, out: Path) -> None:
    """Write a fold's rows, tokenized, with their targets."""
    config = task.config
    gpu = 1 if ray.cluster_resources().get("GPU", 0) and config.use_gpu != "no" else 0
    with staged_dir(out) as staging:
        rows_of(version, "train", part).map_batches(
            _Teacher,
            batch_format="pyarrow",
            batch_size=_BATCH,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=config.max_workers),
            num_cpus=config.cpus_per_worker,
            num_gpus=gpu,
            fn_constructor_args=(task, model_dir),
        ).write_parquet(str(staging))


class _Teacher:
    """Targets of rows that its model has not seen."""

    def __init__(self, task: Task, model_dir: Path) -> None:
        from finsent.inference.config import EngineConfig
        from finsent.inference.engine import Engine

        self._task = task
        self._engine = Engine(model_dir, EngineConfig(threads=task.config.cpus_per_worker))

    def __call__(self, rows: pa.Table) -> pa.Table:
        from finsent.training.tokens import tokenize

        found = self._engine.probabilities(rows["text"].to_pylist())
        targets = soft_targets(rows["label"].to_pylist(), found, self._task.config.distill_share)
        return tokenize(rows, **self._task.tokenizing, targets=targets)


def soft_targets(
    labels: list[str], found: npt.NDArray[np.float32], share: float
) -> npt.NDArray[np.float32]:
    """A mixture of labels and probabilities, shape (rows, labels).

    Args:
        found: probabilities, shape (rows, labels).
        share: of `found` in it, 0 to 1.
    """
    from finsent.labels import LABEL2ID, LABELS

    own = np.eye(len(LABELS), dtype=np.float32)[[LABEL2ID[name] for name in labels]]
    mixed: npt.NDArray[np.float32] = (1 - share) * own + share * found
    return mixed.astype(np.float32)
