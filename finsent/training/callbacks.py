"""Callbacks of the training loop."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from finsent.training.checkpoint_writer import CheckpointWriter, WriteState
from finsent.training.metrics import EpochMetrics
from finsent.training.metrics_log import MetricsLine, MetricsLog
from finsent.training.progress import Progress


class Callbacks(Protocol):
    """Callbacks of the training loop on every rank; only rank 0 gets something to write."""

    def on_start(self, step: int) -> None:
        """Handle the start of a run, or its resumption after a step."""

    def on_progress(self, progress: Progress) -> None:
        """Show progress. Must not block."""

    def on_note(self, message: str) -> None:
        """Report a decision of the run to the user. Must not block."""

    def on_metrics(self, line: MetricsLine) -> None:
        """Handle a line for `metrics.jsonl`."""

    def on_checkpoint(self, name: str, write_state: WriteState | None) -> None:
        """Handle a checkpoint in the middle of an epoch.

        Args:
            write_state: writes the checkpoint, also in another thread; None on ranks other than 0.
        """

    def on_epoch_end(self, metrics: EpochMetrics, write_state: WriteState | None) -> None:
        """Handle the end of an epoch.

        Args:
            write_state: writes the checkpoint; None on ranks other than 0.
        """


class WritingCallbacks:
    """Callbacks that write metrics and checkpoints into a run's directory."""

    def __init__(self, run_dir: Path, writer: CheckpointWriter | None) -> None:
        """Store the writer.

        Args:
            writer: of rank 0; None on the other ranks, which write nothing.
        """
        self._writer = writer
        self._metrics_log = MetricsLog(run_dir)

    def on_start(self, step: int) -> None:
        """Start `metrics.jsonl`, or drop its lines after a step."""
        if self._writer:
            self._metrics_log.start(step)

    def on_metrics(self, line: MetricsLine) -> None:
        """Append a line to `metrics.jsonl`.

        Raises:
            Exception: a checkpoint could not be written in the background.
        """
        if self._writer:
            self._writer.raise_failure()
            self._metrics_log.append(line)

    def on_checkpoint(self, name: str, write_state: WriteState | None) -> None:
        """Write a checkpoint in the background."""
        if self._writer and write_state:
            self._writer.write_async(name, write_state)
