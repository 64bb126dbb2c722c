"""Tracked runs of a sweep, in one group: one per trial, and one of the sweep itself.

In the driver: a stopped trial's process is killed.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from finsent.errors import ConfigError
from ray_jobs import publish
from ray_jobs._tracking import in_group, tracking
from tune.analysis import PAGE, PICTURES
from tune.settings import SweepSettings
from tune.space import with_values
from tune.trial import TRIALS


class TrialTracking:
    """Opens a run when a trial starts and closes it when it ends; a context closes the rest."""

    def __init__(self, settings: SweepSettings, run_dir: Path) -> None:
        self._settings = in_group(settings, run_dir)
        self._run_dir, self._open = run_dir, dict[int, ExitStack]()

    def __enter__(self) -> TrialTracking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stack in self._open.values():
            stack.close()

    def follow(self, event: str, number: int, fields: dict[str, Any]) -> None:
        """Take an event of the sweep's records."""
        if event == "start" and number not in self._open:
            place = self._run_dir / TRIALS / f"{number:04d}"
            place.mkdir(parents=True, exist_ok=True)
            try:
                settings = with_values(self._settings, fields["params"])
            except ConfigError:  # the trial says so itself
                settings = self._settings
            stack = self._open[number] = ExitStack()
            stack.enter_context(tracking(settings, place))
        elif event == "end" and number in self._open:
            self._open.pop(number).close()


def track_sweep(
    settings: SweepSettings,
    run_dir: Path,
    measured: dict[str, Any] | None,
    published: dict[str, Any],
) -> None:
    """Record a sweep itself: its page and pictures, and the model that it found.

    Args:
        measured: figures of the model on the test split; None: the sweep verified none.
        published: what the job returns of a published version, or nothing.
    """
    with tracking(in_group(settings, run_dir), run_dir) as tracker:
        if (run_dir / PAGE).is_file():
            tracker.pictures("sweep", (run_dir / PICTURES).glob("*.png"), run_dir / PAGE)
        if measured is not None:
            tracker.report({**measured, "split": "test"}, run_dir / "evaluation")
        if published:
            publish.track(tracker, published)
