"""Ray Train around the loop: workers, checkpoints, restarts, resume by run name.

Ray's helper processes import this module, too; what takes seconds to import (transformers) is
imported where it is used.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.train
import torch
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointUploadMode,
    DataConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from finsent.data.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.files import read_json, staged_dir, write_json
from finsent.training.capacity import check_capacity
from finsent.training.checkpoint import MODEL, PREFIX, best_checkpoint, saved_checkpoints
from finsent.training.config import OPERATIONAL
from finsent.training.progress import Progress, ProgressBoard, TrainingBar
from finsent.training.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A finished training run."""

    model_dir: Path  # the best epoch's model
    best: dict[str, Any]  # its metrics
    history: list[dict[str, Any]]  # metrics of every epoch


class _RayHooks:
    """Progress to the board, metrics and checkpoints to Ray Train."""

    def __init__(self, board: Any, run_dir: Path) -> None:
        self._board = board
        self._run_dir = run_dir
        self._rank = ray.train.get_context().get_world_rank()

    def inform(self, progress: Progress) -> None:
        if self._rank == 0:
            self._board.write.remote(progress)

    def epoch_done(self, metrics: dict[str, Any], save: Callable[[Path], None] | None) -> None:
        checkpoint = None
        if save is not None:
            # Written where it stays: a copy from a temporary place would cost as much again.
            folder = self._run_dir / f"{PREFIX}{metrics['epoch']:04d}"
            shutil.rmtree(folder, ignore_errors=True)  # half deleted
            with staged_dir(folder) as staging:
                save(staging)
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)


def _worker(arguments: dict[str, Any]) -> None:
    from finsent.training.loop import train
    from finsent.training.tokens import TokenRows

    task: Task = arguments["task"]
    torch.set_num_threads(task.config.cpus_per_worker)  # whatever OMP_NUM_THREADS says
    splits = {
        name: TokenRows.from_table(_collect(name), arguments["pad_id"])
        for name in ("train", "validation")
    }
    train(
        task,
        splits["train"],
        splits["validation"],
        _RayHooks(arguments["board"], arguments["run_dir"]),
        get_device(),
        resume=_newest(arguments["run_dir"]),
    )


def _newest(run_dir: Path) -> Path | None:
    """The checkpoint to go on from, the same one on all ranks.

    What lies there counts, not Ray Train's records, which a killed job may leave behind or torn.
    """
    newest = None
    if ray.train.get_context().get_world_rank() == 0:
        saved = saved_checkpoints(run_dir)
        newest = str(saved[-1].folder) if saved else None
    newest = broadcast_from_rank_zero(newest)
    return None if newest is None else Path(newest)


def _collect(split: str) -> pa.Table:
    shard = ray.train.get_dataset_shard(split)
    return pa.concat_tables(shard.iter_batches(batch_size=None, batch_format="pyarrow"))


def tokenised(version: DatasetVersion, split: str, task: Task) -> Any:
    """A split as a materialised Ray dataset of schema `finsent.training.tokens.TOKENISED`."""
    from finsent.training.tokens import tokenise

    backbone = task.backbone
    dataset = ray.data.read_parquet([str(file) for file in version.files(split)])
    return (
        dataset.select_columns(["key", "text", "label"])
        .map_batches(
            tokenise,  # type: ignore[arg-type] # keyword arguments are missing in Ray's types
            batch_format="pyarrow",
            fn_kwargs={
                "source": backbone.source,
                "revision": backbone.revision,
                "max_length": task.max_length,
            },
        )
        .materialize()  # so that no epoch needs CPUs beside the workers
    )


def fit(task: Task, version: DatasetVersion, run_dir: Path) -> TrainResult:
    """Tokenise a dataset version with Ray Data and train on it; see `fit_tokenised`."""
    check_same_task(task, run_dir)
    datasets = {name: tokenised(version, name, task) for name in ("train", "validation")}
    return fit_tokenised(task, datasets, run_dir)


def check_same_task(task: Task, run_dir: Path) -> None:
    """A run goes on only with the data, the backbone and the recipe that it began with.

    Raises:
        InputError: its checkpoints are of another task.
    """
    begun = run_dir / "task.json"
    recipe = {k: v for k, v in task.provenance["config"].items() if k not in OPERATIONAL}
    mine = {**task.provenance, "config": recipe}
    if begun.is_file() and [*run_dir.glob("checkpoint_*")]:
        theirs = read_json(begun)
        changed = [key for key in mine if theirs.get(key) != mine[key]]
        if changed:
            raise InputError(
                f"run.name={run_dir.name!r}: its checkpoints are of another {changed[0]} "
                f"({_brief(theirs.get(changed[0]))}, now {_brief(mine[changed[0]])}); choose "
                "another run.name"
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(begun, mine)


def _brief(value: Any) -> str:
    return str(value.get("version", "changed") if isinstance(value, dict) else value)


def fit_tokenised(task: Task, datasets: dict[str, Any], run_dir: Path) -> TrainResult:
    """Train on a running Ray; goes on from the last checkpoint when `run_dir` holds one.

    Args:
        datasets: `train` and `validation`, materialised Ray datasets of schema
            `finsent.training.tokens.TOKENISED`.
        run_dir: checkpoints and the best model are written here; seen by all nodes.

    Raises:
        InputError: the cluster cannot hold the workers.
        ray.train.TrainingFailedError: a worker failed more often than allowed.
    """
    from finsent.modeling.classifier import load_tokenizer

    config = task.config
    use_gpu = check_capacity(config)
    _tidy(run_dir)
    # Read by Ray Train's controller when it starts; there is no argument for it.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.start_timeout)
    board = ray.remote(num_cpus=0)(ProgressBoard).remote()
    tokenizer = load_tokenizer(task.backbone.source, task.backbone.revision)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "task": task,
            "pad_id": tokenizer.pad_token_id,
            "board": board,
            "run_dir": run_dir,
        },
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": config.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        run_config=RunConfig(
            name=run_dir.name,
            storage_path=str(run_dir.parent),
            failure_config=FailureConfig(
                max_failures=config.max_failures,
                controller_failure_limit=1,  # type: ignore[call-arg] # of Train V2's class
            ),
            checkpoint_config=CheckpointConfig(
                num_to_keep=1,  # the best; Ray always keeps the latest beside it
                checkpoint_score_attribute="macro_f1",
                checkpoint_score_order="max",
            ),
        ),
        datasets=datasets,
        # Every worker sees all rows and takes its share of each batch: the batches stay the same
        # whatever the number of workers, and no row is lost to equal splits.
        dataset_config=DataConfig(datasets_to_split=[]),
    )
    _fit_with_bar(trainer, board)
    return _export_best(run_dir)


def _tidy(run_dir: Path) -> None:
    """Leave the best and the newest checkpoint of an earlier try, and none of Ray Train's records.

    Ray Train writes them in place and refuses to start with torn ones; all that they say stands in
    the checkpoints, too.
    """
    (run_dir / "checkpoint_manager_snapshot.json").unlink(missing_ok=True)
    saved = saved_checkpoints(run_dir)
    kept = {best_checkpoint(saved).folder, saved[-1].folder} if saved else set()
    for folder in run_dir.glob(f"{PREFIX}*"):
        if folder not in kept:
            shutil.rmtree(folder)


def _fit_with_bar(trainer: TorchTrainer, board: Any) -> None:
    # In a thread of its own, as Ray Train takes over SIGINT when it runs in the main one; here the
    # main thread shows the bar and stays interruptible.
    pool = ThreadPoolExecutor(1, "ray-train")
    future = pool.submit(trainer.fit)
    with TrainingBar() as shown:
        try:
            while not future.done():
                wait([future], timeout=1)
                try:
                    progress = ray.get(board.read.remote(), timeout=5)
                except ray.exceptions.RayError:  # a bar is not worth a run
                    progress = None
                if progress is not None:
                    shown.show(progress)
            future.result()
        finally:
            pool.shutdown(wait=False)


def _export_best(run_dir: Path) -> TrainResult:
    saved = saved_checkpoints(run_dir)
    best = best_checkpoint(saved)
    model_dir = run_dir / MODEL
    for old in (model_dir, run_dir / "evaluation"):  # figures of another model must not survive
        shutil.rmtree(old, ignore_errors=True)
    with staged_dir(model_dir) as staging:
        shutil.copytree(best.folder / MODEL, staging, dirs_exist_ok=True)
    return TrainResult(model_dir, best.metrics, saved[-1].history)
