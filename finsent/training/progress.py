"""What the driver shows of a training that happens in other processes."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from finsent.errors import UserError
from finsent.progress import format_duration, progress_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where the run stands; a message for a person."""

    rows: int  # trained since the start of the run, over all workers
    total_rows: int
    epoch: int  # counted from 1
    loss: float
    padding_share: float
    step: int  # steps made since the start of the run
    total_steps: int


class ProgressBoard:
    """Holds what the workers tell the driver; a Ray actor, but knows nothing of Ray.

    It stands in this small module so that its process imports no torch.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._notes: list[str] = []
        self._epochs: dict[int, dict[str, Any]] = {}
        self._failure: UserError | None = None

    def write(self, progress: Progress) -> None:
        """Replace what is known."""
        self._progress = progress

    def read(self) -> Progress | None:
        """The latest, or None before the first step."""
        return self._progress

    def note(self, message: str) -> None:
        """Add a message for the user."""
        self._notes.append(message)

    def notes(self, start: int) -> list[str]:
        """The messages from number `start` on. They stay: an answer may come too late."""
        return self._notes[start:]

    def finish_epoch(self, metrics: dict[str, Any]) -> None:
        """Add the metrics of an epoch whose checkpoint is written."""
        self._epochs[metrics["epoch"]] = metrics

    def epochs(self, after: int) -> list[dict[str, Any]]:
        """The metrics of the epochs after one, in order. They stay, as notes do."""
        return [self._epochs[epoch] for epoch in sorted(self._epochs) if epoch > after]

    def fail(self, error: UserError) -> None:
        """Say why all workers have to stop, where the user can mend it."""
        self._failure = self._failure or error

    def failure(self) -> UserError | None:
        """Why all workers have stopped, or None."""
        return self._failure


class TrainingDisplay:
    """Notes, a line per epoch, and a bar with rows, rate, time left, epoch, step, loss, padding.

    Args:
        title: of the bar.
        epochs: of the run.
    """

    def __init__(self, title: str, epochs: int) -> None:
        self._title, self._total = title, epochs
        self._seconds: list[float] = []  # of the epochs that were shown
        self._bar: Any = None  # a tqdm, made when the total is known
        self.notes = 0  # number of notes that were shown
        self.epoch = 0  # the last epoch that was shown

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(
        self, progress: Progress | None, notes: Sequence[str], epochs: Sequence[dict[str, Any]]
    ) -> None:
        """Log new notes and epochs, and move the bar.

        Args:
            progress: None before the first step.
            notes: from number `self.notes` on.
            epochs: metrics of the epochs after `self.epoch`, in order.
        """
        if self._bar is not None and (notes or epochs):
            self._bar.clear()  # the next update draws it again, below these lines
        for note in notes:
            log.warning("train: %s", note)
        self.notes += len(notes)
        for metrics in epochs:
            self.epoch = metrics["epoch"]
            self._seconds.append(metrics["epoch_seconds"])
            log.info("%s", epoch_line(metrics, self._total, self._seconds))
        if progress is not None:
            self._move(progress)

    def _move(self, progress: Progress) -> None:
        if self._bar is not None and progress.rows < self._bar.n:  # back at a checkpoint
            self._bar.close()
            self._bar = None
        if self._bar is None:
            total = progress.total_rows
            self._bar = progress_bar(
                self._title, "row", total, progress.rows, terminal_seconds=0.5, log_seconds=10.0
            )
        self._bar.set_postfix(
            epoch=progress.epoch,
            step=f"{progress.step}/{progress.total_steps}",
            loss=f"{progress.loss:.3f}",
            padding=f"{progress.padding_share:.1%}",
            refresh=False,
        )
        self._bar.update(progress.rows - self._bar.n)


def epoch_line(metrics: dict[str, Any], epochs: int, seconds: Sequence[float]) -> str:
    """A line on an epoch, with the time that the rest of the training takes at the rate so far.

    Args:
        epochs: of the run, which may stop earlier.
        seconds: of the epochs so far.
    """
    left = epochs - metrics["epoch"]
    more = (
        f"; about {format_duration(left * statistics.median(seconds))} of training left"
        if left
        else ""
    )
    return (
        f"epoch {metrics['epoch']} of {epochs}: macro-F1 {metrics['macro_f1']:.3f}, "
        f"accuracy {metrics['accuracy']:.3f}, "
        f"loss {metrics['train_loss']:.3f} / {metrics['validation_loss']:.3f}, "
        f"{metrics['rows_per_second']:.1f} rows/s, {metrics['tokens_per_second']:.0f} tokens/s, "
        f"padding {metrics['padding_share']:.1%}{more}"
    )
