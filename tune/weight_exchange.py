"""Weights that go from trial to trial in population-based training (PBT).

A checkpoint that Ray Tune passes on is a small file that names the directory and the epoch of the
weights. The trial that takes over starts a new directory, `NUMBER-TURN`, from a copy of that
checkpoint.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from finsent.errors import InputError
from finsent.files import read_json, staged_dir, write_json
from finsent.training.checkpoint import find_damage, latest_valid, list_checkpoints
from tune.records import WeightsSource

_SOURCE_FILE = "source.json"
_PARAMS_FILE = "params.json"  # the configuration under which a directory's weights are trained


@contextmanager
def offered_checkpoint(folder: Path, epoch: int) -> Iterator[Any]:
    """Provide the checkpoint with which a trial offers its weights to others.

    Args:
        folder: the trial's directory.
        epoch: of the weights.
    """
    with tempfile.TemporaryDirectory() as temporary:
        WeightsSource(folder=folder, epoch=epoch).write(Path(temporary) / _SOURCE_FILE)
        yield tune.Checkpoint.from_directory(temporary)


def training_dir(folder: Path, params: Mapping[str, Any]) -> Path:
    """Return the directory of a trial's training. It has another trial's weights if PBT chose so.

    Args:
        folder: the trial's first directory.
        params: the trial's configuration.
    """
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:  # the trial, or the driver, is new: the trial resumes its last turn
        last = max(folder.parent.glob(f"{folder.name}-*"), key=_turn, default=folder)
        return with_params(last, folder, params)
    with checkpoint.as_directory() as temporary:
        source = WeightsSource.read(Path(temporary) / _SOURCE_FILE)
    if source.folder.name.split("-")[0] == folder.name:  # the trial's own, of before its pause
        return source.folder
    return with_params(_take_over(source.folder, folder, source.epoch), folder, params)


def with_params(last: Path, folder: Path, params: Mapping[str, Any]) -> Path:
    """Return the directory of a trial's training under its configuration.

    A killed driver may have given a trial another configuration than its directory's. The trial
    then continues in a new directory with its own weights.

    Args:
        last: the trial's newest directory.
        folder: the trial's first directory.
    """
    file = last / _PARAMS_FILE
    if file.is_file() and read_json(file) != params:
        last = _take_over(last, folder)
        file = last / _PARAMS_FILE
    last.mkdir(parents=True, exist_ok=True)
    write_json(file, dict(params))
    return last


def _turn(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _take_over(source: Path, folder: Path, epoch: int | None = None) -> Path:
    """Create a trial's next directory, whose run resumes from a copy of a checkpoint.

    Args:
        source: directory with the checkpoint.
        folder: the trial's first directory.
        epoch: of the checkpoint; the newest by default, and where the epoch's is gone or damaged.
    """
    turn = len(list(folder.parent.glob(f"{folder.name}-*"))) + 1
    following = folder.with_name(f"{folder.name}-{turn}")
    at_epoch = [c for c in list_checkpoints(source) if (c.epoch, c.step) == (epoch, 0)]
    is_valid = at_epoch and find_damage(at_epoch[0].folder) is None
    saved = at_epoch[0] if is_valid else latest_valid(source)
    if saved is None:
        raise InputError(
            f"{source}: has no valid checkpoint to resume from. Run the sweep again under another "
            "run.name."
        )
    with staged_dir(following / saved.folder.name) as staging:
        shutil.copytree(saved.folder, staging, dirs_exist_ok=True)
    return following


def drop_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a trial that never resumes."""
    for checkpoint in folder.glob("checkpoint_[es]*_[0-9]*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
