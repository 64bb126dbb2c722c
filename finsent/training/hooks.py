"""The loop's ways out."""

from __future__ import annotations

from typing import Any, Protocol

from finsent.training.outputs import Save
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
