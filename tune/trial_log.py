"""Writing `trials.jsonl`: one line per event of a sweep's trials, as it happens."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.tune import Callback

from finsent.adapters.ray_tune import TuneTrial
from finsent.disk import DiskError
from finsent.errors import InputError
from finsent.files import append_lines
from tune.records import TRIALS, Params, Trial, TrialConfig, kept_value
from tune.trial import own_config
from tune.trial_events import (
    DIVERGED,
    EpochEnded,
    Event,
    SuggestionRepeated,
    TrialEnded,
    TrialStarted,
    TrialStatus,
)
from tune.trial_report import TrialReport

log = logging.getLogger(__name__)

_LOCK_FILE = ".lock"
_EPOCH_METRICS = ("macro_f1", "accuracy", "validation_loss", "loss", "learning_rate")
_MAX_REASON = 300  # characters


@contextmanager
def lock_run_dir(run_dir: Path) -> Iterator[None]:
    """Lock a sweep's directory; the lock ends with the process.

    Raises:
        InputError: another process holds the lock.
    """
    with (run_dir / _LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"run.name={run_dir.name!r}: a sweep runs there. Wait for it, or choose another "
                "run.name."
            ) from None
        yield


class TrialLog:
    """Appends events to `trials.jsonl`, after cutting off a killed driver's incomplete line."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / TRIALS
        if self._path.is_file():
            content = self._path.read_bytes()
            complete_bytes = content.rfind(b"\n") + 1
            if complete_bytes < len(content):
                os.truncate(self._path, complete_bytes)

    def write(self, event: Event) -> None:
        """Append an event.

        Raises:
            DiskError: the event cannot be written; the file is as before.
        """
        line = json.dumps(event.model_dump(), ensure_ascii=False)
        append_lines(self._path, line.encode() + b"\n")

    def write_repeat(self, number: int) -> None:
        """Append that the search has suggested a trial's settings again."""
        self.write(SuggestionRepeated(trial=number, time=_now()))


class TrialLogCallback(Callback):
    """Writes the events of Ray Tune's trials, and passes them on.

    Args:
        modes: direction by objective, the metric first.
        past: existing trials of the sweep; their epochs are not written again.
        stop_reason: of a trial that the scheduler stopped, e.g. the scheduler's name.
        on_event: called with each event after it was written.
    """

    def __init__(
        self,
        trial_log: TrialLog,
        modes: Mapping[str, str],
        past: Sequence[Trial],
        stop_reason: str,
        on_event: Callable[[Event], None],
    ) -> None:
        self._log, self._modes, self._stop_reason = trial_log, modes, stop_reason
        self._on_event = on_event
        self._epochs = {t.number: {e.epoch: e.metrics for e in t.epochs} for t in past}
        self._started: dict[int, float] = {}  # monotonic seconds, by number
        self._params: dict[int, Params] = {}
        self._ended: set[int] = set()

    def on_trial_start(self, trial: TuneTrial, **_: Any) -> None:  # type: ignore[override]
        """Record that a trial starts, resumes, or continues with another's settings (PBT)."""
        config = _config_of(trial)
        self._started.setdefault(config["number"], time.monotonic())
        self._record_params(config)

    def _record_params(self, config: TrialConfig) -> None:
        number, params = config["number"], dict(config["params"])
        if self._params.get(number) == params:
            return
        source = "pbt" if number in self._params else config.get("source", "search")
        self._params[number] = params
        self._write(TrialStarted(trial=number, time=_now(), params=params, source=source))

    def on_trial_result(self, trial: TuneTrial, result: Mapping[str, Any], **_: Any) -> None:  # type: ignore[override]
        """Record that a trial has finished an epoch.

        Raises:
            DiskError: the trial could not write, as no trial could. Ray Tune ends the search with
                an error that a callback raises.
        """
        config, report = _config_of(trial), TrialReport.parse(result)
        self._record_params(config)
        if report.full:
            raise DiskError(*report.full)
        number, epoch = config["number"], report.epoch
        if epoch is None or report.is_last or epoch in self._epochs.setdefault(number, {}):
            return
        metrics = {key: result[key] for key in (*_EPOCH_METRICS, *self._modes) if key in result}
        self._epochs[number][epoch] = metrics
        self._write(
            EpochEnded(
                trial=number,
                time=_now(),
                epoch=epoch,
                metrics=metrics,
                seconds=report.epoch_seconds,
            )
        )

    def on_trial_complete(self, trial: TuneTrial, **_: Any) -> None:  # type: ignore[override]
        """Record that a trial has ended by itself, by the scheduler, or by a failure of its own."""
        report = TrialReport.parse(trial.last_result)
        if report.failure is not None:
            status: TrialStatus = "diverged" if report.cause == DIVERGED else "failed"
            self._end(trial, status, reason=report.failure, cause=report.cause)
        elif report.final:
            values, model_dir = report.final, report.model_dir
            self._end(trial, "finished", values=values, checkpoint=model_dir)
        else:
            reason = f"{self._stop_reason}, after epoch {report.epoch}"
            epochs = self._epochs.get(_config_of(trial)["number"], {})
            self._end(trial, "stopped", reason=reason, values=best_values(epochs, self._modes))

    def on_trial_recover(self, trial: TuneTrial, **_: Any) -> None:  # type: ignore[override]
        """Log that a trial has lost its process and restarts."""
        log.warning("trial %d lost its process, and restarts", _config_of(trial)["number"])

    def on_trial_error(self, trial: TuneTrial, **_: Any) -> None:  # type: ignore[override]
        """Record that a trial has lost its process too often."""
        error = _last_line(Path(trial.error_file)) if trial.error_file else None
        self._end(trial, "failed", reason=error or "its process was lost")

    def _end(
        self,
        trial: TuneTrial,
        status: TrialStatus,
        *,
        reason: str | None = None,
        values: Mapping[str, float] | None = None,
        checkpoint: str | None = None,
        cause: str | None = None,
    ) -> None:
        self.on_trial_start(trial)  # the process may be lost before the trial starts
        number = _config_of(trial)["number"]
        self._ended.add(number)
        self._write(
            TrialEnded(
                trial=number,
                time=_now(),
                status=status,
                reason=reason,
                epochs=len(self._epochs.get(number, {})),
                seconds=round(time.monotonic() - self._started[number], 3),
                values=dict(values or {}),
                checkpoint=checkpoint,
                cause=cause,
            )
        )

    def interrupt(self, reason: str) -> None:
        """Record the end of all running trials, until the sweep resumes."""
        for number in [number for number in self._started if number not in self._ended]:
            epochs = self._epochs.get(number, {})
            self._ended.add(number)
            self._write(
                TrialEnded(
                    trial=number,
                    time=_now(),
                    status="interrupted",
                    reason=reason,
                    epochs=len(epochs),
                    seconds=round(time.monotonic() - self._started[number], 3),
                    values=dict(best_values(epochs, self._modes)),
                )
            )

    def _write(self, event: Event) -> None:
        self._log.write(event)
        self._on_event(event)


def best_values(
    epochs: Mapping[int, Mapping[str, float]], modes: Mapping[str, str]
) -> dict[str, float]:
    """Return a trial's values as if it ended now; empty before the first epoch.

    Args:
        epochs: metrics by epoch.
        modes: direction by objective, the metric first.
    """
    metric, mode = next(iter(modes.items()))
    value = kept_value((epochs[epoch] for epoch in sorted(epochs)), metric, mode)
    return {} if value is None else {metric: value}


def _now() -> float:
    return round(time.time(), 3)


def _config_of(trial: TuneTrial) -> TrialConfig:
    return own_config(trial.config, trial.custom_trial_name)


def _last_line(file: Path) -> str | None:
    """Return the last line of a traceback."""
    try:
        lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
    except OSError:
        return None
    return next((line[:_MAX_REASON] for line in reversed(lines) if line), None)
