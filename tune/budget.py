"""The budget of a search: epochs, seconds, and interruption."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from ray.tune import Stopper

from tune.config import SweepConfig
from tune.records import Sweep


class Budget(Stopper):
    """Ends a search at its limits, or when `end` is called.

    Args:
        epochs: epochs of earlier starts of the sweep.
        seconds: seconds of earlier starts of the sweep.
        stop_file: created at the end; trials poll for it within an epoch.
    """

    def __init__(self, config: SweepConfig, epochs: int, seconds: float, stop_file: Path) -> None:
        self._config, self._stop_file = config, stop_file
        self.clear()
        self.epochs, self._start = epochs, time.monotonic() - seconds
        self._is_ended = threading.Event()
        self.reason: str | None = None

    def __getstate__(self) -> dict[str, object]:
        return {}  # Ray Tune pickles its arguments, which nothing loads

    def __call__(self, *_: Any) -> bool:
        """Return whether one trial ends: never."""
        return False

    def clear(self) -> None:
        """Let trials that start from now on run."""
        self._stop_file.unlink(missing_ok=True)

    def end(self) -> None:
        """End the search as soon as possible."""
        self._is_ended.set()

    def stop_all(self) -> bool:
        """Return whether the search is over."""
        config = self._config
        seconds = time.monotonic() - self._start
        if config.max_epochs is not None and self.epochs >= config.max_epochs:
            self.reason = f"sweep.max_epochs={config.max_epochs}"
        elif config.max_seconds is not None and seconds >= config.max_seconds:
            self.reason = f"sweep.max_seconds={config.max_seconds:g}"
        is_over = self.reason is not None or self._is_ended.is_set()
        if is_over:
            self._stop_file.touch()
        return is_over


def spent_epochs(sweep: Sweep) -> int:
    """Return the epochs of a sweep's existing trials."""
    return sum(len(trial.epochs) for trial in sweep.trials)


def spent_seconds(sweep: Sweep) -> float:
    """Return the seconds of earlier starts of a sweep, each until its last event."""
    times = sorted(
        time
        for trial in sweep.trials
        for time in [trial.started, trial.ended, *(epoch.time for epoch in trial.epochs)]
        if time is not None
    )
    total = 0.0
    for start, following in pairwise(sweep.settings.attempts):
        inside = [time for time in times if start <= time < following]
        total += inside[-1] - start if inside else 0.0
    return total
