"""Tracked runs of a sweep, in one group: one run per trial, and one of the sweep itself.

The driver tracks the trials, since the process of a stopped trial is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType

from finsent.errors import ConfigError
from finsent.registry.publication import Publication, Refusal
from finsent.tracking.tracker import Tracker, tracked
from tune.analysis import PAGE, PICTURES
from tune.settings import SweepSettings
from tune.space import with_values
from tune.trial import trial_dir
from tune.trial_events import Event, TrialEnded, TrialStarted


class TrialTracking:
    """Opens a run when a trial starts and closes the run when the trial ends.

    A context that closes the runs which are still open.
    """

    def __init__(self, settings: SweepSettings, run_dir: Path) -> None:
        self._settings, self._group = settings, run_dir.name
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

    def follow(self, event: Event) -> None:
        """Open or close a trial's run by an event of the sweep's records."""
        number = event.trial
        if isinstance(event, TrialStarted) and number not in self._open:
            folder = trial_dir(self._run_dir, number)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                settings = with_values(self._settings, event.params)
            except ConfigError:  # the trial reports the error itself
                settings = self._settings
            stack = self._open[number] = ExitStack()
            stack.enter_context(_tracked(settings, self._group, folder))
        elif isinstance(event, TrialEnded) and number in self._open:
            self._open.pop(number).close()


def track_sweep(
    settings: SweepSettings,
    run_dir: Path,
    measured: Mapping[str, object] | None,
    publication: Publication | Refusal | None,
) -> None:
    """Record a sweep itself: its page and pictures, and the model that it found.

    Args:
        measured: figures of the model on the test split; None: the sweep verified no model.
        publication: None: the sweep was not to publish its model.
    """
    with _tracked(settings, run_dir.name, run_dir) as tracker:
        if (run_dir / PAGE).is_file():
            tracker.pictures("sweep", (run_dir / PICTURES).glob("*.png"), run_dir / PAGE)
        if measured is not None:
            figures = {k: v for k, v in measured.items() if isinstance(v, int | float)}
            tracker.report("test", figures, run_dir / "evaluation")
        if publication is not None:
            publication.track(tracker)


def _tracked(settings: SweepSettings, group: str, run_dir: Path) -> AbstractContextManager[Tracker]:
    """Track a run in the group of a sweep, or in the group of the setting `tracking.group`."""
    group = settings.tracking.group or group
    settings = settings.replaced(tracking=settings.tracking.replaced(group=group))
    return tracked(settings.tracking, run_dir, settings.for_records())
