"""Pruning of checkpoints while another process of the run writes some."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from finsent.files import sha256_file, write_json
from finsent.training.checkpoint import (
    LoopState,
    list_checkpoints,
    prune,
    state_digest,
    step_checkpoint_name,
)

FILES = ("model/config.json", "model/model.safetensors", "optimizer.safetensors")


def write_checkpoint(run_dir: Path, step: int) -> Path:
    """Write a checkpoint without weights."""
    folder = run_dir / step_checkpoint_name(step)
    (folder / "model").mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("{}")
    files = {name: {"bytes": 2, "sha256": sha256_file(folder / name)} for name in FILES}
    loop = LoopState(step=step).model_dump(mode="json")
    state = {**loop, "optimizer_tensors": 0, "files": files}
    write_json(folder / "state.json", {**state, "digest": state_digest(state)})
    return folder


class Writer(logging.Handler):
    """Writes a checkpoint when `prune` warns about an incomplete one."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(logging.WARNING)
        self._run_dir = run_dir
        self.written: list[Path] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "is incomplete" in record.getMessage() and not self.written:
            self.written.append(write_checkpoint(self._run_dir, 50))


def test_a_checkpoint_that_is_written_meanwhile_stays(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A process of a lost node prunes; the run has resumed in other processes."""
    for step in (10, 20, 30):
        write_checkpoint(tmp_path, step)
    (tmp_path / step_checkpoint_name(5)).mkdir()  # incomplete
    writer, logger = Writer(tmp_path), logging.getLogger("finsent")
    logger.addHandler(writer)
    request.addfinalizer(lambda: logger.removeHandler(writer))
    prune(tmp_path)
    assert len(writer.written) == 1
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [20, 30, 50]
    assert not (tmp_path / step_checkpoint_name(5)).exists()
