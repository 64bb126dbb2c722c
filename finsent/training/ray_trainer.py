"""Training on Ray Train: tokenize, start the workers, restart them, and resume by run name.

Ray's helper processes import this module, too, so what takes seconds to import (transformers) is
imported inside functions.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.train.torch import TorchConfig

from finsent.adapters.ray_train import (
    CheckpointConfig,
    FailureConfig,
    LeanTorchTrainer,
    RaiseFailure,
    RunConfig,
    ScalingConfig,
    remove_records,
    set_start_timeout,
)
from finsent.data.versions.dataset import DatasetVersion
from finsent.disk import has_ample_room
from finsent.errors import UserError
from finsent.runs import TRAINED_FILE
from finsent.training.capacity import check_capacity, check_disk
from finsent.training.checkpoint import (
    Checkpoint,
    latest_valid,
    list_checkpoints,
    prune,
)
from finsent.training.checkpoint_mirror import CheckpointMirror
from finsent.training.distill import FoldFilter, distilled_rows, read_split
from finsent.training.exported_metrics import counted_divergence
from finsent.training.finished_run import TrainResult, export_best, finished_training
from finsent.training.frontends.check import check_trainer
from finsent.training.metrics_log import METRICS_FILE, read_metrics
from finsent.training.plot import plot_training
from finsent.training.progress import TrainingDisplay
from finsent.training.ray_driver import run_trainer, start_board
from finsent.training.ray_worker import WorkerInputs, train_worker
from finsent.training.same_task import check_same_task
from finsent.training.task import Task
from finsent.training.tokens import SPLIT_COLUMNS, tokenize

log = logging.getLogger(__name__)

PLOT_FILE = "training.png"
_MAX_LOCAL_ROWS = 20_000  # of a split, which take about a second to tokenize

Blocks = list[Any]  # references of Arrow tables in Ray's object store


def tokenize_split(
    version: DatasetVersion, split: str, task: Task, fold_filter: FoldFilter | None = None
) -> ray.data.Dataset:
    """Return a split as a materialized dataset of schema `TOKENIZED_SCHEMA`.

    Args:
        fold_filter: which rows; None: all.
    """
    dataset: ray.data.Dataset = (
        read_split(version, split, fold_filter)
        .map_batches(
            tokenize,  # type: ignore[arg-type] # Ray's types lack keyword arguments
            batch_format="pyarrow",
            fn_kwargs={**task.tokenizer_arguments},
        )
        .materialize()  # otherwise each epoch would need CPUs next to the workers
    )
    return dataset


def tokenized_blocks(version: DatasetVersion, split: str, task: Task) -> Blocks:
    """Return a split as references of tables of `TOKENIZED_SCHEMA`.

    A small split is tokenized in this process, where starting tasks takes longer.
    """
    if version.rows(split) > _MAX_LOCAL_ROWS:
        return _blocks(tokenize_split(version, split, task))
    rows = version.read(split, [*SPLIT_COLUMNS])
    return [ray.put(tokenize(rows, **task.tokenizer_arguments))]


def _blocks(dataset: ray.data.Dataset) -> Blocks:
    blocks: Blocks = dataset.to_arrow_refs()
    return blocks


def fit(
    task: Task,
    version: DatasetVersion,
    run_dir: Path,
    datasets: Mapping[str, ray.data.Dataset] | None = None,
    *,
    title: str = "train",
    mirror: CheckpointMirror | None = None,
) -> TrainResult:
    """Tokenize a dataset version with Ray Data and train on it, as `fit_tokenized` does.

    A finished run whose checkpoints were removed is not trained again.

    Args:
        datasets: the version's splits from `tokenize_split` for the same task; None: tokenize.
        title: of the progress bar.
        mirror: of a run in a bucket, whose checkpoints the run's directory has already; None: the
            run is in a directory that all nodes see.

    Raises:
        ConfigError: the run's checkpoints are of another task.
    """
    check_same_task(task, run_dir)
    if (finished := finished_training(run_dir)) is not None:
        log.info("train: %s is finished, and its model is used", run_dir.name)
        return finished
    if datasets is not None:
        blocks = {split: _blocks(dataset) for split, dataset in datasets.items()}
        return _fit_blocks(task, blocks, run_dir, title=title, mirror=mirror)
    validation = tokenized_blocks(version, "validation", task)
    if task.config.distill_folds is None:
        train = tokenized_blocks(version, "train", task)
    else:
        fit_fold = partial(_fit_fold, validation)
        train = _blocks(distilled_rows(task, version, run_dir / "folds", fit_fold))
    blocks = {"train": train, "validation": validation}
    return _fit_blocks(task, blocks, run_dir, title=title, mirror=mirror)


def _fit_fold(
    validation: Blocks,
    task: Task,
    version: DatasetVersion,
    fold_filter: FoldFilter,
    run_dir: Path,
) -> Path:
    train = _blocks(tokenize_split(version, "train", task, fold_filter))
    return _fit_blocks(task, {"train": train, "validation": validation}, run_dir).model_dir


def fit_tokenized(
    task: Task,
    datasets: Mapping[str, ray.data.Dataset],
    run_dir: Path,
    *,
    title: str = "train",
) -> TrainResult:
    """Train on a running Ray; resume from the latest valid checkpoint in `run_dir`, if any.

    Args:
        datasets: `train` and `validation`, materialized, of schema
            `finsent.training.tokens.TOKENIZED_SCHEMA`.
        run_dir: for checkpoints and the best model; seen by all nodes.
        title: of the progress bar.

    Raises:
        InputError: the cluster cannot hold the workers.
        ray.train.TrainingFailedError: a worker failed more often than allowed.
    """
    blocks = {split: _blocks(dataset) for split, dataset in datasets.items()}
    return _fit_blocks(task, blocks, run_dir, title=title)


def _fit_blocks(
    task: Task,
    blocks: dict[str, Blocks],
    run_dir: Path,
    *,
    title: str = "train",
    mirror: CheckpointMirror | None = None,
) -> TrainResult:
    config = task.config
    check_trainer(config)  # here, so that not every worker fails
    use_gpu = check_capacity(config)
    latest = _clean(run_dir, config.keep_every_epochs)
    if latest is not None and latest.epoch >= config.epochs:
        log.info("train: %s has all of its %d epochs", run_dir.name, config.epochs)
        _plot(run_dir)
        return export_best(run_dir)
    _check_disk(task, run_dir, latest)
    board = start_board()
    # Every worker reads all rows and takes its share of each batch: the batches stay the same
    # whatever the number of workers, and no row is lost to equal splits.
    trainer = _make_trainer(WorkerInputs(task, board, run_dir, blocks, mirror), use_gpu=use_gpu)
    try:
        with counted_divergence(run_dir):
            run_trainer(trainer, board, TrainingDisplay(title, config.epochs))
        if mirror:
            mirror.fetch_missing(run_dir)  # rank 0 may have trained on another node
    finally:
        _plot(run_dir)
    return export_best(run_dir)


def _make_trainer(inputs: WorkerInputs, *, use_gpu: bool) -> LeanTorchTrainer:
    config, board = inputs.task.config, inputs.board
    is_elastic = config.min_workers < config.max_workers
    set_start_timeout(config.start_timeout, is_elastic=is_elastic)
    resources: dict[str, float] = {"CPU": config.cpus_per_worker}
    if use_gpu:
        resources["GPU"] = config.gpus_per_worker
    return LeanTorchTrainer(
        train_worker,
        train_loop_config={"inputs": inputs},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            elastic_resize_monitor_interval_s=config.resize_every,
            use_gpu=use_gpu,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=inputs.run_dir.name,
            storage_path=str(inputs.run_dir.parent),
            failure_config=FailureConfig(
                max_failures=config.max_failures,
                # Attempts to start: an elastic run waits for nodes that come back.
                controller_failure_limit=-1 if is_elastic else 1,
            ),
            # `prune` decides by the files on disk which checkpoints to keep.
            checkpoint_config=CheckpointConfig(num_to_keep=None),
            callbacks=[RaiseFailure(lambda: ray.get(board.failure.remote()))],
        ),
    )


def _check_disk(task: Task, run_dir: Path, latest: Checkpoint | None) -> None:
    if has_ample_room(run_dir):
        return
    # transformers takes 3 CPU seconds; see the module's docstring.
    from finsent.modeling.classifier import weight_bytes

    checkpoint_count, epochs = len(list_checkpoints(run_dir)), latest.epoch if latest else 0
    check_disk(task.config, weight_bytes(task.backbone), run_dir, checkpoint_count, epochs)


def _plot(run_dir: Path) -> None:
    """Plot the run so far, also of a run that has failed."""
    if not (run_dir / METRICS_FILE).is_file():
        return
    try:
        plot_training(read_metrics(run_dir), run_dir / PLOT_FILE, run_dir.name)
    except UserError as error:  # such as a full disk, which also fails the checkpoints
        log.warning("train: no plot of the run: %s", error)


def _clean(run_dir: Path, keep_every: int | None) -> Checkpoint | None:
    """Remove damaged and superfluous checkpoints of an earlier attempt, and Ray Train's records.

    Returns:
        the latest valid checkpoint, if any.

    Raises:
        InputError: all checkpoints are damaged.
    """
    remove_records(run_dir)
    (run_dir / TRAINED_FILE).unlink(missing_ok=True)
    latest = latest_valid(run_dir)
    if latest is not None:
        for checkpoint in list_checkpoints(run_dir, lambda _: None):
            if (checkpoint.epoch, checkpoint.step) > (latest.epoch, latest.step):  # damaged
                shutil.rmtree(checkpoint.folder)
    prune(run_dir, keep_every)
    return latest
