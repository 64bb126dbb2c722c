"""Callbacks of the training loop."""

from __future__ import annotations

from typing import Any, Protocol

from finsent.training.outputs import Outputs, Save
from finsent.training.progress import Progress


class Hooks(Protocol):
    """Called on every rank; what is to be written comes on the first one only."""

    def inform(self, progress: Progress) -> None:
        """Show progress. Must not block."""

    def note(self, message: str) -> None:
        """Tell the user something that the run has decided. Must not block."""

    def started(self, step: int) -> None:
        """Training begins, or goes on after a step."""

    def log(self, record: dict[str, Any]) -> None:
        """Take a line of `metrics.jsonl`."""

    def step_done(self, name: str, save: Save | None) -> None:
        """In the middle of an epoch: `save` writes a checkpoint (rank 0 only, else None), in a
        thread of its own if need be."""

    def epoch_done(self, metrics: dict[str, Any], save: Save | None) -> None:
        """Take an epoch's metrics; `save` writes the checkpoint (rank 0 only, else None)."""


class WritingHooks:
    """The callbacks that write lines and checkpoints into the run's directory."""

    def __init__(self, outputs: Outputs | None) -> None:
        """Keep the outputs.

        Args:
            outputs: of the first rank; None: this is another one, which writes nothing.
        """
        self._outputs = outputs

    def started(self, step: int) -> None:
        """Begin `metrics.jsonl`, or cut it after a step."""
        if self._outputs:
            self._outputs.started(step)

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl`."""
        if self._outputs:
            self._outputs.log(record)

    def step_done(self, name: str, save: Save | None) -> None:
        """Save a checkpoint in the background."""
        if self._outputs and save:
            self._outputs.save_later(name, save)
