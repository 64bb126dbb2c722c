"""Progress of a training: notes, a line per epoch, a bar."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from finsent.training.progress import Progress, ProgressBoard, TrainingDisplay, epoch_line
from tests.unit.metrics import epoch_metrics


def progress(rows: int) -> Progress:
    return Progress(rows, 400, 1 + rows // 101, 0.5, 0.047, rows // 10, 40)


def show(board: ProgressBoard, display: TrainingDisplay) -> None:
    """Show the board, as the driver does each second."""
    display.show(board.read(), board.notes(display.note_count), board.epochs(display.epoch))


def test_each_finished_epoch_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen := io.StringIO())
    board, messages = ProgressBoard(), []
    with caplog.at_level(logging.INFO), TrainingDisplay("[2/5] train", 4) as display:
        for epoch in range(1, 5):
            board.write(progress(100 * epoch - 50))
            show(board, display)
            board.finish_epoch(epoch_metrics(epoch))
            board.write(progress(100 * epoch))
            show(board, display)
            messages.append(caplog.messages[-1])
            show(board, display)  # nothing is new
    assert caplog.messages == messages
    assert [line.split(":")[0] for line in messages] == [f"epoch {n} of 4" for n in range(1, 5)]
    assert [line.split("; ")[1:] for line in messages] == [
        ["about 3:00 of training left"],
        ["about 2:00 of training left"],
        ["about 1:00 of training left"],
        [],
    ]
    assert screen.getvalue().startswith("[2/5] train: 12% (50 of 400), ")
    assert "\r" not in screen.getvalue()


def test_earlier_epochs_are_logged_first_and_none_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = ProgressBoard()
    with caplog.at_level(logging.INFO), TrainingDisplay("train", 3) as display:
        for epoch in (1, 2):  # of the checkpoint
            board.finish_epoch(epoch_metrics(epoch))
        board.note("2 of at most 4 worker(s) for now")
        show(board, display)
        for epoch in (1, 2, 3):  # a worker was lost
            board.finish_epoch(epoch_metrics(epoch))
        show(board, display)
    assert [line[:7] for line in caplog.messages] == ["train: ", "epoch 1", "epoch 2", "epoch 3"]


def test_time_left_is_estimated_by_the_median_epoch() -> None:
    line = epoch_line(
        epoch_metrics(3, epoch_seconds=10), 5, [120, 130, 10]
    )  # the third was resumed near its end
    assert line.endswith("; about 4:00 of training left")
    assert line.startswith("epoch 3 of 5: macro-F1 0.500, accuracy 0.625, loss 0.900 / 0.800, ")
