"""A progress bar in the driver for work that happens in other processes."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

from finsent.bars import bar


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
        self._failure: str | None = None

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

    def fail(self, message: str) -> None:
        """Say why all workers have stopped, where the user can mend it."""
        self._failure = message

    def failure(self) -> str | None:
        """Why all workers have stopped, or None."""
        return self._failure


class TrainingBar:
    """A bar on stderr: rows, rate, time left, epoch, step, loss, padding."""

    def __init__(self) -> None:
        self._bar: Any = None  # a tqdm, made when the total is known

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._bar is not None:
            self._bar.close()

    def show(self, progress: Progress) -> None:
        """Move the bar to where the run stands."""
        if self._bar is not None and progress.rows < self._bar.n:  # back at a checkpoint
            self._bar.close()
            self._bar = None
        if self._bar is None:
            self._bar = bar("train", "row", progress.total_rows, progress.rows, live=0.5, log=10.0)
        self._bar.set_postfix(
            epoch=progress.epoch, step=f"{progress.step}/{progress.total_steps}",
            loss=f"{progress.loss:.3f}", padding=f"{progress.padding_share:.1%}", refresh=False,
        )  # fmt: skip
        self._bar.update(progress.rows - self._bar.n)
