"""A worker of Ray Train: the loop on this process's device, its checkpoints and its progress.

Ray's helper processes import this module, too; what takes seconds to import (transformers) is
imported where it is used.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import get_device

from finsent.errors import InputError
from finsent.training.checkpoint import epoch_name, newest_whole
from finsent.training.failures import reporting
from finsent.training.hooks import WritingHooks
from finsent.training.outputs import Outputs, Save
from finsent.training.progress import Progress
from finsent.training.task import Task


class _RayHooks(WritingHooks):
    """Progress and notes to the board, checkpoints and lines to disk, metrics to Ray Train."""

    def __init__(self, board: Any, outputs: Outputs | None) -> None:
        super().__init__(outputs)
        self._board = board

    def inform(self, progress: Progress) -> None:
        if self._outputs:
            self._board.write.remote(progress)

    def note(self, message: str) -> None:
        if self._outputs:
            self._board.note.remote(message)

    def epoch_done(self, metrics: dict[str, Any], save: Save | None) -> None:
        checkpoint = None
        if self._outputs and save:
            folder = self._outputs.save(epoch_name(metrics["epoch"]), save)
            checkpoint = Checkpoint.from_directory(folder)
            self._board.finish_epoch.remote(metrics)
        ray.train.report(metrics, checkpoint, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)


def train_worker(arguments: dict[str, Any]) -> None:
    """Train as one of the workers.

    Args:
        arguments: `task`, `board` (handle of a `ProgressBoard`), `run_dir`, and `blocks`, the
            references of the tables of each split.
    """
    # Here: the driver and the controller import this module, too, and load no model.
    from finsent.modeling.classifier import load_tokenizer
    from finsent.training.frontends import trainer_of
    from finsent.training.tokens import TokenRows

    task: Task = arguments["task"]
    board, run_dir = arguments["board"], arguments["run_dir"]
    pad_id = load_tokenizer(task.backbone.source, task.backbone.revision).pad_token_id
    torch.set_num_threads(task.config.cpus_per_worker)  # whatever OMP_NUM_THREADS says
    splits = {
        name: TokenRows.from_table(_collect(blocks), pad_id)
        for name, blocks in arguments["blocks"].items()
    }
    context = ray.train.get_context()
    first, workers = context.get_world_rank() == 0, context.get_world_size()
    if first and workers < task.config.max_workers:
        board.note.remote(f"{workers} of at most {task.config.max_workers} worker(s) for now")
    with reporting(board, run_dir, first=first):
        resume = _newest(run_dir, board)
        with Outputs(run_dir, task.config.keep_every_epochs) if first else nullcontext() as outputs:
            hooks = _RayHooks(board, outputs)
            train = trainer_of(task.config)
            train(task, splits["train"], splits["validation"], hooks, get_device(), resume)


def _newest(run_dir: Path, board: Any) -> Path | None:
    """The checkpoint to go on from, the same one on all ranks.

    What lies there counts, not Ray Train's records, which a killed job may leave behind or torn.

    Raises:
        InputError: all are damaged; on all ranks.
    """
    newest, problem = None, None
    if ray.train.get_context().get_world_rank() == 0:
        try:
            saved = newest_whole(run_dir, board.note.remote)
            newest = str(saved.folder) if saved else None
            for metrics in saved.history if saved else []:
                board.finish_epoch.remote(metrics)
        except InputError as error:
            problem = str(error)
    newest, problem = broadcast_from_rank_zero((newest, problem))
    if problem is not None:
        raise InputError(problem)
    return None if newest is None else Path(newest)


def _collect(blocks: list[Any]) -> pa.Table:
    """A split in one table, without a copy of what is in this machine's memory."""
    tables = ray.get(blocks)
    return pa.concat_tables(table for table in tables if table.num_rows)
