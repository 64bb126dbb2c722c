"""Ray Train around the loop: the driver's part, with restarts and resume by run name.

Ray's helper processes import this module, too; what takes seconds to import (transformers) is
imported where it is used.
"""

from __future__ import annotations

import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finsent.data.versions.dataset import DatasetVersion
from finsent.disk import DiskError, has_ample_room
from finsent.errors import InputError
from finsent.files import read_json, staged_dir, write_json
from finsent.runs import TRAINED, has_trained
from finsent.training.capacity import check_capacity, check_disk
from finsent.training.checkpoint import (
    MODEL,
    Saved,
    best_checkpoint,
    damage,
    newest_whole,
    retain,
    saved_checkpoints,
)
from finsent.training.config import OPERATIONAL
from finsent.training.distill import Part, distilled, rows_of
from finsent.training.failures import EndOnFailure
from finsent.training.finished import TrainResult, finished_training
from finsent.training.frontends.check import check
from finsent.training.outputs import JOURNAL, read_journal
from finsent.training.picture import training_picture
from finsent.training.progress import ProgressBoard, TrainingDisplay
from finsent.training.ray_worker import train_worker
from finsent.training.task import Task

log = logging.getLogger(__name__)

# Ray Train looks at the cluster's nodes this often (seconds). When one is lost, it may first ask
# for as many workers as before, and must not wait for them much longer than this.
_STALE = 20


# Processes that Ray Train starts next to each run, and that this project does without. One removes
# a dead controller's placement group: Ray does that itself at the end of the job, who kills runs
# within one has to do it, and the process would go on for ever where there is no dashboard to ask.
# The other deals out datasets: every worker sees all rows.
_UNUSED = (PlacementGroupCleanerCallback, DatasetsCallback)


class _Trainer(TorchTrainer):
    """Without processes of no use here."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc] # of Train V2's class
        return [one for one in callbacks if not isinstance(one, _UNUSED)]


def tokenized(version: DatasetVersion, split: str, task: Task, part: Part | None = None) -> Any:
    """A split as a materialized Ray dataset of schema `finsent.training.tokens.TOKENISED`.

    Args:
        part: which rows of it; None: all.
    """
    from finsent.training.tokens import tokenize

    return (
        rows_of(version, split, part)
        .map_batches(
            tokenize,
            batch_format="pyarrow",
            fn_kwargs=task.tokenizing,
        )
        .materialize()  # so that no epoch needs CPUs beside the workers
    )


def fit(
    task: Task,
    version: DatasetVersion,
    run_dir: Path,
    datasets: dict[str, Any] | None = None,
    *,
    title: str = "train",
) -> TrainResult:
    """Tokenize a dataset version with Ray Data and train on it; see `fit_tokenized`.

    A finished run whose checkpoints were removed is not trained again.

    Args:
        datasets: the version's splits, tokenized by `tokenized` for the same task before.
        title: of the progress bar.
    """
    check_same_task(task, run_dir)
    if (finished := finished_training(run_dir)) is not None:
        log.info("train: %s is trained already, and its model is used", run_dir.name)
        return finished
    if datasets is not None:
        return fit_tokenized(task, datasets, run_dir, title=title)
    validation = tokenized(version, "validation", task)
    if task.config.distill_folds is None:
        train = tokenized(version, "train", task)
    else:
        train = distilled(task, version, run_dir / "folds", partial(_fit_fold, validation))
    datasets = {"train": train, "validation": validation}
    return fit_tokenized(task, datasets, run_dir, title=title)


def _fit_fold(
    validation: Any, task: Task, version: DatasetVersion, part: Part, run_dir: Path
) -> Path:
    train = tokenized(version, "train", task, part)
    return fit_tokenized(task, {"train": train, "validation": validation}, run_dir).model_dir


def check_same_task(task: Task, run_dir: Path) -> None:
    """A run goes on only with the data, the backbone and the recipe that it began with.

    Raises:
        InputError: its checkpoints are of another task.
    """
    begun = run_dir / "task.json"
    recipe = {k: v for k, v in task.provenance["config"].items() if k not in OPERATIONAL}
    mine = {**task.provenance, "config": recipe}
    if begun.is_file() and has_trained(run_dir):
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


def fit_tokenized(
    task: Task, datasets: dict[str, Any], run_dir: Path, *, title: str = "train"
) -> TrainResult:
    """Train on a running Ray; goes on from the last checkpoint when `run_dir` holds one.

    Args:
        datasets: `train` and `validation`, materialized Ray datasets of schema
            `finsent.training.tokens.TOKENISED`.
        run_dir: checkpoints and the best model are written here; seen by all nodes.
        title: of the progress bar.

    Raises:
        InputError: the cluster cannot hold the workers.
        ray.train.TrainingFailedError: a worker failed more often than allowed.
    """
    config = task.config
    check(config)  # fails here rather than on every worker
    use_gpu = check_capacity(config)
    newest = _tidy(run_dir, config.keep_every_epochs)
    if newest is not None and newest.epoch >= config.epochs:
        log.info("train: %s has all of its %d epochs", run_dir.name, config.epochs)
        _draw(run_dir)
        return _export_best(run_dir)
    _check_room(task, run_dir, newest)
    # Here: another node may be lost.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote: Any = ray.remote(num_cpus=0)(ProgressBoard).options(scheduling_strategy=here)
    board = remote.remote()
    trainer = _make_trainer(task, datasets, run_dir, board, use_gpu=use_gpu)
    try:
        _fit(trainer, board, TrainingDisplay(title, config.epochs))
    finally:
        _draw(run_dir)
    return _export_best(run_dir)


def _make_trainer(
    task: Task, datasets: dict[str, Any], run_dir: Path, board: Any, *, use_gpu: bool
) -> TorchTrainer:
    """Return the trainer of a task, whose workers write to a directory and tell a board."""
    config = task.config
    elastic = config.min_workers < config.max_workers
    patience = min(config.start_timeout, _STALE) if elastic else config.start_timeout
    # Read by Ray Train's controller when it starts; there is no argument for it.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(patience)
    return _Trainer(
        train_worker,
        train_loop_config={
            "task": task,
            "board": board,
            "run_dir": run_dir,
            # Every worker sees all rows and takes its share of each batch: the batches stay the
            # same whatever the number of workers, and no row is lost to equal splits.
            "blocks": {name: data.to_arrow_refs() for name, data in datasets.items()},
        },
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,  # type: ignore[arg-type] # Train V2's class takes pairs
            elastic_resize_monitor_interval_s=config.resize_every,  # type: ignore[call-arg] # same
            use_gpu=use_gpu,
            resources_per_worker={
                "CPU": config.cpus_per_worker,
                **({"GPU": config.gpus_per_worker} if use_gpu else {}),
            },
        ),
        run_config=RunConfig(
            name=run_dir.name,
            storage_path=str(run_dir.parent),
            failure_config=FailureConfig(
                max_failures=config.max_failures,
                controller_failure_limit=-1 if elastic else 1,  # type: ignore[call-arg] # of Train V2's class
            ),
            # Which ones to keep is decided by what lies on disk, see `retain`.
            checkpoint_config=CheckpointConfig(num_to_keep=None),
            callbacks=[EndOnFailure(board)],  # type: ignore[list-item] # Train V2's class
        ),
    )


def _check_room(task: Task, run_dir: Path, newest: Saved | None) -> None:
    if has_ample_room(run_dir):
        return
    from finsent.modeling.classifier import weight_bytes

    checkpoints, epochs = len(saved_checkpoints(run_dir)), newest.epoch if newest else 0
    check_disk(task.config, weight_bytes(task.backbone), run_dir, checkpoints, epochs)


def _draw(run_dir: Path) -> None:
    """Draw the run so far, also of one that has failed."""
    if not (run_dir / JOURNAL).is_file():
        return
    try:
        training_picture(read_journal(run_dir), run_dir / "training.png", run_dir.name)
    except DiskError as error:  # the checkpoints need more room than a picture, and say so
        log.warning("train: no picture of the run: %s", error)


def _tidy(run_dir: Path, keep_every: int | None) -> Saved | None:
    """Leave what is needed of an earlier try's checkpoints, and none of Ray Train's records.

    Ray Train writes them in place and refuses to start with torn ones; all that they say stands in
    the checkpoints, too.

    Returns:
        the newest valid checkpoint, if any.

    Raises:
        InputError: there are checkpoints, and all are damaged.
    """
    for name in ("checkpoint_manager_snapshot.json", TRAINED):
        (run_dir / name).unlink(missing_ok=True)
    newest = newest_whole(run_dir)
    if newest is not None:
        for saved in saved_checkpoints(run_dir, lambda _: None):
            if (saved.epoch, saved.step) > (newest.epoch, newest.step):  # damaged
                shutil.rmtree(saved.folder)
    retain(run_dir, keep_every)
    return newest


def _fit(trainer: TorchTrainer, board: Any, display: TrainingDisplay) -> None:
    try:
        if ray.get_runtime_context().get_actor_id() is None:
            _fit_with_bar(trainer, board, display)
        else:
            trainer.fit()  # a bar would not be seen
    except TrainingFailedError:
        if (failure := ray.get(board.failure.remote())) is not None:
            raise failure from None
        raise
    if (failure := ray.get(board.failure.remote())) is not None:
        raise failure


def _fit_with_bar(trainer: TorchTrainer, board: Any, display: TrainingDisplay) -> None:
    # In a thread of its own, as Ray Train takes over SIGINT when it runs in the main one; here the
    # main thread shows the bar and stays interruptible.
    log.info("train: the workers start")
    pool = ThreadPoolExecutor(1, "ray-train")
    future = pool.submit(trainer.fit)
    with display:
        try:
            while not future.done():
                wait([future], timeout=1)
                _show(board, display)
            _show(board, display)  # the last epoch
            future.result()
        finally:
            pool.shutdown(wait=False)


def _show(board: Any, display: TrainingDisplay) -> None:
    try:
        progress, notes, epochs = ray.get(
            [
                board.read.remote(),
                board.notes.remote(display.notes),
                board.epochs.remote(display.epoch),
            ],
            timeout=5,
        )
    except ray.exceptions.RayError:  # a bar is not worth a run
        return
    display.show(progress, notes, epochs)


def _export_best(run_dir: Path) -> TrainResult:
    saved = saved_checkpoints(run_dir)
    whole = list(saved)
    best = best_checkpoint(whole)
    while damage(best.folder) is not None:
        whole.remove(best)
        best = best_checkpoint(whole)
    model_dir = run_dir / MODEL
    for old in (model_dir, run_dir / "evaluation"):  # figures of another model must not survive
        shutil.rmtree(old, ignore_errors=True)
    with staged_dir(model_dir) as staging:
        shutil.copytree(best.folder / MODEL, staging, dirs_exist_ok=True)
    return TrainResult(model_dir, best.metrics, saved[-1].history)
