"""A worker of Ray Train: trains on this process's device, and reports to the board and to disk.

Ray's helper processes, the driver and the controller import this module, too. They load no model,
so what takes seconds to import (transformers) is imported inside the worker's function.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.train
import torch
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import get_device

from finsent.disk import DiskError, translate_disk_errors
from finsent.errors import InputError
from finsent.storage import StorageError
from finsent.training.callbacks import WritingCallbacks
from finsent.training.checkpoint import epoch_checkpoint_name, latest_valid
from finsent.training.checkpoint_mirror import CheckpointMirror, CheckpointUploads
from finsent.training.checkpoint_writer import CheckpointWriter, WriteState
from finsent.training.exported_metrics import TrainingMetrics
from finsent.training.metrics import EpochMetrics
from finsent.training.progress import Progress
from finsent.training.task import Task


@dataclass(frozen=True)
class WorkerInputs:
    """Inputs of each worker, from the driver."""

    task: Task
    board: Any  # handle of a `finsent.training.progress.ProgressBoard`
    run_dir: Path  # seen by all nodes, unless there is a mirror
    blocks: dict[str, list[Any]]  # references of each split's tables, by split
    mirror: CheckpointMirror | None = None  # of a run in a bucket

    def open_writer(self) -> CheckpointWriter:
        """Return the writer of rank 0."""
        uploads = CheckpointUploads(self.mirror, self.run_dir) if self.mirror else None
        return CheckpointWriter(self.run_dir, self.task.config.keep_every_epochs, uploads)


class _RayCallbacks(WritingCallbacks):
    """Sends progress and notes to the board, and metrics to Ray; writes the run's files."""

    def __init__(
        self, inputs: WorkerInputs, writer: CheckpointWriter | None, metrics: TrainingMetrics
    ) -> None:
        super().__init__(inputs.run_dir, writer)
        self._board, self._metrics = inputs.board, metrics

    def on_progress(self, progress: Progress) -> None:
        self._metrics.show_gpu()
        if self._writer:
            self._metrics.show(progress)
            self._board.write.remote(progress)

    def on_note(self, message: str) -> None:
        if self._writer:
            self._board.note.remote(message)

    def on_epoch_end(self, metrics: EpochMetrics, write_state: WriteState | None) -> None:
        checkpoint = None
        if self._writer and write_state:
            folder = self._writer.write(epoch_checkpoint_name(metrics.epoch), write_state)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            self._board.finish_epoch.remote(metrics)
            self._metrics.show_epoch(metrics)
        ray.train.report(
            metrics.model_dump(mode="json"),
            checkpoint,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
        )


def train_worker(arguments: dict[str, WorkerInputs]) -> None:
    """Train as one of the workers.

    Args:
        arguments: `inputs`; Ray Train passes a dictionary only.
    """
    # transformers takes 3 CPU seconds; see the module's docstring.
    from finsent.modeling.classifier import load_tokenizer
    from finsent.training.tokens import TokenizedRows
    from finsent.training.train import train
    from finsent.training.training_run import TrainingInputs

    inputs = arguments["inputs"]
    config, backbone, board = inputs.task.config, inputs.task.backbone, inputs.board
    pad_id = load_tokenizer(backbone.source, backbone.revision).pad_token_id
    torch.set_num_threads(config.cpus_per_worker)  # OMP_NUM_THREADS may have another value
    rows = {
        split: TokenizedRows.from_table(_concatenate(blocks), pad_id)
        for split, blocks in inputs.blocks.items()
    }
    context = ray.train.get_context()
    is_first, workers = context.get_world_rank() == 0, context.get_world_size()
    if is_first and workers < config.max_workers:
        board.note.remote(f"{workers} of at most {config.max_workers} worker(s) for now")
    metrics = TrainingMetrics(inputs.run_dir, context.get_world_rank(), workers)
    with _reporting_failures(inputs, is_first=is_first), metrics.running():
        resume_from = _latest_checkpoint(inputs)
        with inputs.open_writer() if is_first else nullcontext() as writer:
            train(
                TrainingInputs(
                    task=inputs.task,
                    train_rows=rows["train"],
                    validation_rows=rows["validation"],
                    callbacks=_RayCallbacks(inputs, writer, metrics),
                    device=get_device(),
                    resume_from=resume_from,
                )
            )


@contextmanager
def _reporting_failures(inputs: WorkerInputs, *, is_first: bool) -> Iterator[None]:
    """Report to the board what the user has to fix.

    Raises:
        DiskError, StorageError: this rank cannot write or fetch. Other errors for the user end the
            block silently.
    """
    try:
        with translate_disk_errors(inputs.run_dir, "storage.root"):
            yield
    except (DiskError, StorageError) as error:
        ray.get(inputs.board.fail.remote(error))
        raise  # the other ranks have no such error, and wait for this rank
    except InputError as error:
        # All ranks have the same error, and would have it again: no reason to restart the workers.
        if is_first:
            ray.get(inputs.board.fail.remote(error))


def _latest_checkpoint(inputs: WorkerInputs) -> Path | None:
    """Return the directory of the checkpoint to resume from, the same on all ranks.

    The files count, not Ray Train's records, which a killed job may leave outdated or torn.

    Raises:
        InputError: all checkpoints are damaged; on all ranks.
    """
    name: str | None = None
    problem: str | None = None
    if ray.train.get_context().get_world_rank() == 0:
        try:
            name = _choose_checkpoint(inputs)
        except InputError as error:
            problem = str(error)
    # The name: each node of a run in a bucket has its own copy.
    name, problem = broadcast_from_rank_zero((name, problem))
    if problem is not None:
        raise InputError(problem)
    if name is None:
        return None
    if inputs.mirror:
        inputs.mirror.fetch(name, inputs.run_dir)
    return inputs.run_dir / name


def _choose_checkpoint(inputs: WorkerInputs) -> str | None:
    """Return the name of the newest valid checkpoint, and report its epochs to the board."""
    mirror, run_dir = inputs.mirror, inputs.run_dir
    if mirror:
        mirror.fetch_missing(run_dir)
    checkpoint = latest_valid(run_dir, inputs.board.note.remote)
    if checkpoint is None:
        return None
    for metrics in checkpoint.history:
        inputs.board.finish_epoch.remote(metrics)
    if mirror:  # for the ranks on other nodes
        mirror.upload(checkpoint.folder)
    return checkpoint.folder.name


def _concatenate(blocks: list[Any]) -> pa.Table:
    """Return a split as one table, without copying what is in this machine's object store."""
    tables = ray.get(blocks)
    return pa.concat_tables(table for table in tables if table.num_rows)
