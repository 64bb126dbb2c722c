"""Checkpoints and metrics that are written while the training runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.training.callbacks import WritingCallbacks
from finsent.training.checkpoint import (
    step_checkpoint_name,
)
from finsent.training.checkpoint_writer import CheckpointWriter
from finsent.training.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from tests.commands import wait_until
from tests.disks import file_limit
from tests.unit.metrics import step_line

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1.5, "trains a tiny model")]


def test_checkpoint_is_written_in_the_background(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()
    names: list[str] = []

    def slow(out: Path) -> None:
        begun.set()
        assert go.wait(30)
        names.append(out.name)

    def quick(out: Path) -> None:
        names.append(out.name)

    with CheckpointWriter(tmp_path) as writer:
        writer.write_async("checkpoint_step_00000001", slow)
        assert begun.wait(30)
        assert not (
            tmp_path / "checkpoint_step_00000001"
        ).exists()  # `write_async` has returned before
        # The next write waits: only one runs at a time.
        second = threading.Thread(
            target=writer.write_async, args=("checkpoint_step_00000002", quick)
        )
        second.start()
        assert names == []
        go.set()
        second.join(30)
    assert len(names) == 2


def test_error_of_a_background_write_is_raised(tmp_path: Path) -> None:
    def fail(_out: Path) -> None:
        raise OSError(28, "No space left on device")

    with CheckpointWriter(tmp_path) as writer:
        writer.write_async(step_checkpoint_name(1), fail)
        with pytest.raises(OSError, match="No space"):
            writer.write_async(step_checkpoint_name(2), lambda _: None)
    with pytest.raises(OSError, match="No space"), CheckpointWriter(tmp_path) as writer:
        writer.write_async(step_checkpoint_name(1), fail)
    assert [*tmp_path.iterdir()] == []  # nothing half-written


def test_full_disk_in_the_background_is_raised_at_the_next_metrics_line(tmp_path: Path) -> None:
    def save(size: int) -> Callable[[Path], None]:
        return lambda out: save_file({"a": torch.zeros(size)}, out / "weights.safetensors")

    def is_raised() -> bool:
        try:
            callbacks.on_metrics(step_line(2, 1.0))
        except DiskError as error:
            assert error.path == tmp_path / step_checkpoint_name(2)
            return True
        return False

    with CheckpointWriter(tmp_path) as writer, file_limit(100_000):
        callbacks = WritingCallbacks(tmp_path, writer)
        writer.write_async(step_checkpoint_name(2), save(100_000))
        wait_until(is_raised, 60, "the error of the writer")
        writer.write_async(step_checkpoint_name(3), save(10))
    assert not [*tmp_path.glob(f"*{step_checkpoint_name(2)}*")]


def test_invalid_metrics_line_is_named(tmp_path: Path) -> None:
    metrics_log = MetricsLog(tmp_path)
    metrics_log.start(0)
    metrics_log.append(step_line(10, 1.0))
    with (tmp_path / METRICS_FILE).open("a") as stream:
        stream.write('{"kind": "step", "step": "ten"}\n')
    with pytest.raises(
        InputError, match=r"metrics\.jsonl: line 2: step\.step: .* another run\.name"
    ):
        read_metrics(tmp_path)
