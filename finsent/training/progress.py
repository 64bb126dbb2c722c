"""Progress of a training in other processes, for the driver.

The process of the board's actor imports this module, and does without torch.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from finsent.errors import UserError
from finsent.progress import format_duration, progress_bar
from finsent.training.metrics import EpochMetrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Position of the run, for a person."""

    rows: int  # trained since the start of the run, over all workers
    total_rows: int
    epoch: int  # counted from 1
    loss: float
    padding_share: float
    step: int  # steps since the start of the run
    total_steps: int


class ProgressBoard:
    """Stores what the workers report to the driver. Runs as a Ray actor, but does not use Ray."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._notes: list[str] = []
        self._epochs: dict[int, EpochMetrics] = {}
        self._failure: UserError | None = None

    def write(self, progress: Progress) -> None:
        """Replace the progress."""
        self._progress = progress

    def read(self) -> Progress | None:
        """Return the latest progress; None: before the first step."""
        return self._progress

    def note(self, message: str) -> None:
        """Add a message for the user."""
        self._notes.append(message)

    def notes(self, start: int) -> list[str]:
        """Return the messages from number `start` on.

        They are kept, as the driver repeats a call whose answer comes too late.
        """
        return self._notes[start:]

    def finish_epoch(self, metrics: EpochMetrics) -> None:
        """Add the metrics of an epoch whose checkpoint is written."""
        self._epochs[metrics.epoch] = metrics

    def epochs(self, after: int) -> list[EpochMetrics]:
        """Return the metrics of the epochs after an epoch, in order. They are kept, as notes."""
        return [self._epochs[epoch] for epoch in sorted(self._epochs) if epoch > after]

    def fail(self, error: UserError) -> None:
        """Store why all workers have to stop, where the user can fix the cause."""
        self._failure = self._failure or error

    def failure(self) -> UserError | None:
        """Return why all workers have to stop; None: no failure."""
        return self._failure


class TrainingDisplay:
    """Logs notes and a line per epoch, and shows a progress bar.

    Args:
        title: of the bar.
        epochs: of the run.
    """

    def __init__(self, title: str, epochs: int) -> None:
        self._title, self._total_epochs = title, epochs
        self._epoch_seconds: list[float] = []  # of the logged epochs
        self._bar: Any = None  # a tqdm bar, once the number of rows is known
        self.note_count = 0  # of logged notes
        self.epoch = 0  # the last logged epoch

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
        self, progress: Progress | None, notes: Sequence[str], epochs: Sequence[EpochMetrics]
    ) -> None:
        """Log new notes and epochs, and move the bar.

        Args:
            progress: None before the first step.
            notes: from number `self.note_count` on.
            epochs: metrics of the epochs after `self.epoch`, in order.
        """
        if self._bar is not None and (notes or epochs):
            self._bar.clear()  # the next update draws the bar below these lines
        for note in notes:
            log.warning("train: %s", note)
        self.note_count += len(notes)
        for metrics in epochs:
            self.epoch = metrics.epoch
            self._epoch_seconds.append(metrics.epoch_seconds)
            log.info("%s", epoch_line(metrics, self._total_epochs, self._epoch_seconds))
        if progress is not None:
            self._move_bar(progress)

    def _move_bar(self, progress: Progress) -> None:
        if self._bar is not None and progress.rows < self._bar.n:  # resumed from a checkpoint
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


def epoch_line(metrics: EpochMetrics, total_epochs: int, epoch_seconds: Sequence[float]) -> str:
    """Return a line about an epoch, with the estimated time of the remaining epochs.

    Args:
        total_epochs: of the run, which may stop earlier.
        epoch_seconds: of the epochs so far.
    """
    epochs_left = total_epochs - metrics.epoch
    remaining = ""
    if epochs_left:
        seconds_left = epochs_left * statistics.median(epoch_seconds)
        remaining = f"; about {format_duration(seconds_left)} of training left"
    return (
        f"epoch {metrics.epoch} of {total_epochs}: macro-F1 {metrics.macro_f1:.3f}, "
        f"accuracy {metrics.accuracy:.3f}, "
        f"loss {metrics.train_loss:.3f} / {metrics.validation_loss:.3f}, "
        f"{metrics.rows_per_second:.1f} rows/s, {metrics.tokens_per_second:.0f} tokens/s, "
        f"padding {metrics.padding_share:.1%}{remaining}"
    )
