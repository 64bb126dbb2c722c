"""Progress of a running sweep, for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from finsent.progress import progress_bar
from tune.config import SweepConfig
from tune.records import Trial
from tune.stats import WITHOUT_VALUE
from tune.trial_events import EpochEnded, Event, TrialEnded, TrialStarted

log = logging.getLogger(__name__)

LIVE_SECONDS, LOG_SECONDS = 0.5, 30.0  # between two drawings of a bar: on a terminal, in a log

_START_WORDS = {
    "resumed": "resumes",
    "pbt": "takes over another trial's weights",
    "known": "starts (known configuration)",
}


class SweepBar:
    """A log line per trial, and a bar: trials, time left, running trials, epochs, best value."""

    def __init__(self, config: SweepConfig, past: Sequence[Trial]) -> None:
        self._config, self._sign = config, 1 if config.mode == "max" else -1
        self._running: set[int] = set()
        self._epochs = sum(len(trial.epochs) for trial in past)
        ended = [trial for trial in past if trial.status not in ("running", "interrupted")]
        self._best: tuple[float, int] | None = None  # value and number
        for trial in ended:
            if (value := trial.values.get(config.metric)) is not None:
                self._update_best(value, trial.number)
        self._bar = progress_bar(
            "sweep",
            "trial",
            config.trials,
            len(ended),
            terminal_seconds=LIVE_SECONDS,
            log_seconds=LOG_SECONDS,
        )

    def __enter__(self) -> SweepBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    @property
    def running_trials(self) -> int:
        """Number of running trials."""
        return len(self._running)

    @property
    def best_value(self) -> float | None:
        """Best value of `sweep.metric` so far."""
        return None if self._best is None else self._best[0]

    def on_event(self, event: Event) -> None:
        """Show an event of a trial."""
        if isinstance(event, TrialStarted):
            self._running.add(event.trial)
            words = _START_WORDS.get(event.source, "starts")
            log.info("trial %d %s: %s", event.trial, words, brief(event.params))
        elif isinstance(event, EpochEnded):
            self._epochs += 1
        elif isinstance(event, TrialEnded):
            self._on_end(event)
        best = "none" if self._best is None else f"{self._best[0]:.4f} (trial {self._best[1]})"
        self._bar.set_postfix_str(
            f"running={self.running_trials}, epochs={self._epochs}, "
            f"best {self._config.metric}={best}",
            refresh=False,
        )

    def _on_end(self, event: TrialEnded) -> None:
        self._running.discard(event.trial)
        metric = self._config.metric
        value = event.values.get(metric)
        if value is not None and event.status not in WITHOUT_VALUE:
            self._update_best(value, event.trial)
        log.info(
            "trial %d %s%s, %d epochs, %.0f s%s",
            event.trial,
            event.status,
            "" if value is None else f", {metric} {value:.4f}",
            event.epochs,
            event.seconds or 0.0,
            f" ({event.reason})" if event.reason else "",
        )
        self._bar.update(event.status != "interrupted")

    def refresh(self) -> None:
        """Redraw the bar with the time that has passed."""
        self._bar.update(0)

    def _update_best(self, value: float, number: int) -> None:
        if self._best is None or self._sign * value > self._sign * self._best[0]:
            self._best = (value, number)


def brief(params: Mapping[str, Any]) -> str:
    """Return a configuration in one line."""
    words = [
        f"{key.rpartition('.')[2]}={value:.3g}"
        if isinstance(value, float)
        else f"{key.rpartition('.')[2]}={value}"
        for key, value in params.items()
    ]
    return ", ".join(words) or "the settings without any change"
