"""Checkpoints of a run on disk: which exist, which are valid, which to keep.

This module imports neither torch nor transformers, which take seconds. `training_state` reads and
writes the tensors of a checkpoint.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from finsent.errors import InputError
from finsent.files import digest, read_json, sha256_file
from finsent.records import ContentDigest, Record
from finsent.runs import CHECKPOINT_PREFIX, MODEL_DIR
from finsent.training.metrics import EpochMetrics, EpochTotals

log = logging.getLogger(__name__)

STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
_PATTERN = f"{CHECKPOINT_PREFIX}[es]*_[0-9]*"
_NEEDED_FILES = (OPTIMIZER_FILE, f"{MODEL_DIR}/config.json", f"{MODEL_DIR}/model.safetensors")
_KEPT_OF_EVERY = 4  # newest checkpoints of `train.keep_every_epochs`
_KEPT_NEWEST = 2  # the second serves where the first is damaged


class LoopState(Record):
    """Position and counters of the training loop."""

    epoch: int = 0  # finished epochs
    step: int = 0  # steps into the next epoch
    history: list[EpochMetrics] = Field(default_factory=list)  # of every finished epoch
    sums: EpochTotals | None = None  # of the unfinished epoch
    logged: EpochTotals | None = None  # the part of `sums` that `metrics.jsonl` has
    scaler: dict[str, int | float] | None = None  # state of fp16's gradient scaler


class StateRecord(LoopState):
    """`state.json` of a checkpoint: the loop's state, and what proves that the files are intact."""

    optimizer_tensors: int
    files: dict[str, ContentDigest]  # by path
    digest: str  # of this record without `digest`


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk."""

    folder: Path
    history: list[EpochMetrics]  # of every finished epoch
    epoch: int  # finished epochs
    step: int  # steps into the next epoch; 0: written at the end of an epoch

    @property
    def metrics(self) -> EpochMetrics:
        """The metrics of the last finished epoch."""
        return self.history[-1]

    @property
    def is_epoch_end(self) -> bool:
        """Whether the checkpoint was written at the end of an epoch."""
        return self.step == 0 and bool(self.history)


def epoch_checkpoint_name(epoch: int) -> str:
    """Return the directory name of the checkpoint at the end of an epoch, counted from 1."""
    return f"{CHECKPOINT_PREFIX}epoch_{epoch:04d}"


def step_checkpoint_name(step: int) -> str:
    """Return the directory name of the checkpoint after a step of the run."""
    return f"{CHECKPOINT_PREFIX}step_{step:08d}"


def state_digest(content: Mapping[str, Any]) -> str:
    """Return the digest that belongs into the content of `state.json`."""
    return digest({name: value for name, value in content.items() if name != "digest"})


def read_state(folder: Path) -> StateRecord:
    """Read `state.json` of a checkpoint.

    Raises:
        InputError: the file is missing, or has changed.
    """
    record = StateRecord.read(folder / STATE_FILE)
    # Of the file's own content: the record may spell a number in another way.
    if record.digest != state_digest(read_json(folder / STATE_FILE)):
        raise InputError(f"{folder / STATE_FILE}: has changed since it was written")
    return record


def list_checkpoints(run_dir: Path, warn: Callable[[str], None] = log.warning) -> list[Checkpoint]:
    """Return a run's checkpoints, the newest last, without those that are obviously incomplete.

    Args:
        warn: receives a message for each incomplete checkpoint.
    """
    checkpoints = []
    for folder in run_dir.glob(_PATTERN):
        try:
            state = read_state(folder)
            missing = [name for name in _NEEDED_FILES if not (folder / name).is_file()]
            if missing:
                raise InputError(f"{folder / missing[0]}: no such file")
        except InputError as error:
            warn(f"checkpoint {str(folder)!r} is incomplete and is not used ({error})")
        else:
            checkpoints.append(Checkpoint(folder, state.history, state.epoch, state.step))
    return sorted(checkpoints, key=lambda checkpoint: (checkpoint.epoch, checkpoint.step))


def best_checkpoint(checkpoints: list[Checkpoint]) -> Checkpoint:
    """Return the end of the epoch with the highest validation macro-F1; of equals the newest."""
    ends = [checkpoint for checkpoint in checkpoints if checkpoint.is_epoch_end]
    return max(ends, key=lambda checkpoint: (checkpoint.metrics.macro_f1, checkpoint.epoch))


def find_damage(folder: Path) -> str | None:
    """Return the first problem of a checkpoint's files by size and SHA-256; None: all are valid."""
    for name, expected in StateRecord.read(folder / STATE_FILE).files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != expected.bytes:
            return f"{name} has {size} bytes, not {expected.bytes}"
        if sha256_file(file) != expected.sha256:
            return f"{name} has another SHA-256 than when it was written"
    return None


def latest_valid(run_dir: Path, warn: Callable[[str], None] = log.warning) -> Checkpoint | None:
    """Return the newest checkpoint whose files are all valid; None: the run has no checkpoint.

    Raises:
        InputError: all checkpoints are damaged.
    """
    damaged = []
    for checkpoint in reversed(list_checkpoints(run_dir, warn)):
        problem = find_damage(checkpoint.folder)
        if problem is None:
            return checkpoint
        damaged.append(f"{checkpoint.folder.name}: {problem}")
        folder = str(checkpoint.folder)
        warn(f"checkpoint {folder!r} is damaged ({problem}); the one before is used")
    if damaged:
        raise InputError(
            f"run.name={run_dir.name!r}: every checkpoint is damaged ({damaged[0]}). Train under "
            "another run.name."
        )
    return None


def prune(run_dir: Path, every: int | None = None) -> None:
    """Delete all checkpoints but the best and the two newest.

    Args:
        every: also keep the newest four checkpoints of every so many epochs.
    """
    # Before the checkpoints are read: a process of a lost node may still run, and must not delete
    # what the run's new processes write meanwhile.
    existing = [*run_dir.glob(_PATTERN)]
    checkpoints = list_checkpoints(run_dir)
    retained = checkpoints[-_KEPT_NEWEST:]
    ends = [checkpoint for checkpoint in checkpoints if checkpoint.is_epoch_end]
    if every is not None:
        retained += [end for end in ends if end.epoch % every == 0][-_KEPT_OF_EVERY:]
    if ends:
        retained.append(best_checkpoint(checkpoints))
    folders = {checkpoint.folder for checkpoint in retained}
    for folder in existing:
        if folder not in folders:
            shutil.rmtree(folder, ignore_errors=True)
