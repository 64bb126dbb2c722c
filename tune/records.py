"""What a sweep writes of itself while it runs: `sweep.json` and `trials.jsonl`, and reading them.

`trials.jsonl` is append-only, one JSON object an event: `start`, `epoch`, `end`, and `repeat` where
the search suggested a trial's settings again, which then are not trained again. A reader may come
at any time: the last line may be half written, and a trial without an `end` still runs or was
killed with its sweep. Who appends to a file again first cuts off a half line.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.files import read_json

SWEEP = "sweep.json"
TRIALS = "trials.jsonl"
VERIFICATION = "verification.json"

DIVERGED, MEMORY = "diverged", "memory"
CAUSES = (DIVERGED, MEMORY)  # of failures that a trial's settings are to blame for
STATUSES = ("finished", "stopped", DIVERGED, "failed", "interrupted", "running")


@dataclass(frozen=True)
class Objective:
    """What is optimized."""

    name: str
    mode: str  # "max" or "min"


@dataclass(frozen=True)
class Epoch:
    """What a trial reported after one epoch."""

    epoch: int  # from 1
    time: float  # Unix seconds
    metrics: dict[str, float]  # finite ones
    seconds: float | None  # that the epoch took


@dataclass
class Trial:
    """One configuration and what became of it."""

    number: int
    params: dict[str, Any]  # by config key; conditional ones may be missing
    status: str = "running"  # one of STATUSES
    reason: str | None = None  # why it was stopped, diverged, failed or was interrupted
    epochs: list[Epoch] = field(default_factory=list)  # by number, each once
    values: dict[str, float] = field(default_factory=dict)  # finite ones, by objective
    started: float | None = None  # Unix seconds, as `ended`
    ended: float | None = None
    source: str = "search"  # known, search or resumed
    seconds: float | None = None  # of work, as its `end` says
    checkpoint: str | None = None
    cause: str | None = None  # of a failure: one of CAUSES, or None


@dataclass
class Sweep:
    """A sweep as far as it has come."""

    run_dir: Path
    name: str
    objectives: list[Objective]  # at least one
    metric: str  # the objective by which one trial is the best
    mode: str
    space: dict[str, dict[str, Any]]  # by config key: kind and bounds
    max_epochs: int | None  # of a trial that nothing stops
    trials: list[Trial]  # by number
    settings: dict[str, Any]  # sweep.json as it stands: scheduler, search, storage, study_name ...
    verification: dict[str, Any] | None  # verification.json, once it is there
    repeats: Counter[int] = field(default_factory=Counter)  # by trial, see `repeated`

    @property
    def finished(self) -> bool:
        """Whether the sweep says that it ended."""
        return bool(self.settings.get("finished"))

    @property
    def repeated(self) -> int:
        """Suggestions that were not trained, as a trial had the same settings."""
        return self.repeats.total()

    @property
    def exhausted(self) -> bool:
        """Whether the search ended because each configuration of the space was tried."""
        return bool(self.settings.get("exhausted"))


def read_sweep(run_dir: Path | str) -> Sweep:
    """Read a sweep's directory, whether it ended, still runs or was killed.

    Raises:
        InputError: it is not a sweep's directory, or a file in it is damaged.
    """
    run_dir = Path(run_dir)
    if not (run_dir / SWEEP).is_file():
        raise InputError(
            f"{str(run_dir)!r} is not a sweep's directory: it has no {SWEEP}; name a directory "
            "that ray_jobs.sweep wrote"
        )
    settings = read_json(run_dir / SWEEP)
    try:
        metric, mode = str(settings["metric"]), str(settings["mode"])
        objectives = [
            Objective(str(each["name"]), str(each["mode"]))
            for each in settings.get("objectives") or [{"name": metric, "mode": mode}]
        ]
        space = {str(key): dict(spec) for key, spec in (settings.get("space") or {}).items()}
        limit = settings.get("max_epochs")
        max_epochs = None if limit is None else int(limit)
        modes = {mode, *(each.mode for each in objectives)}
        if not modes <= {"max", "min"}:
            raise ValueError(f"mode {sorted(modes)}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{run_dir / SWEEP}: damaged ({type(error).__name__}: {error}); restore the file or "
            "run the sweep again"
        ) from None
    trials, repeats = _read_trials(run_dir / TRIALS)
    if settings.get("finished"):
        for trial in trials:
            if trial.status == "running":
                trial.status, trial.reason = "interrupted", trial.reason or "no end was recorded"
    verification = run_dir / VERIFICATION
    return Sweep(
        run_dir=run_dir,
        name=str(settings.get("name") or run_dir.name),
        objectives=objectives,
        metric=metric,
        mode=mode,
        space=space,
        max_epochs=max_epochs,
        trials=trials,
        settings=settings,
        verification=_verification(verification) if verification.is_file() else None,
        repeats=repeats,
    )


def kept_value(epochs: Iterable[Mapping[str, float]], metric: str, mode: str) -> float | None:
    """The metric after the epoch that training would keep: the best macro-F1's, of equals the last.

    Args:
        epochs: metrics in the order of the epochs; where one lacks macro-F1, the best value counts.
    """
    reported = [found for found in epochs if metric in found]
    if not reported:
        return None
    if all("macro_f1" in found for found in reported):
        return max(reversed(reported), key=lambda found: found["macro_f1"])[metric]
    values = [found[metric] for found in reported]
    return max(values) if mode == "max" else min(values)


def _verification(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: not an object; the file is damaged")
    return found


def _read_trials(path: Path) -> tuple[list[Trial], Counter[int]]:
    """Trials by number, and how often each was suggested again; none before there is a file."""
    trials: dict[int, Trial] = {}
    repeats: Counter[int] = Counter()
    if not path.is_file():
        return [], repeats
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError:
            if number == len(lines):
                break  # half written: only a whole line ends with a newline
            raise _damaged(path, number, "not JSON") from None
        try:
            if event["event"] == "repeat":  # perhaps of a trial that has not started yet
                repeats[int(event["trial"])] += 1
            else:
                _apply(trials, event)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(path, number, f"{type(error).__name__}: {error}") from None
    return [trials[number] for number in sorted(trials)], repeats


def _damaged(path: Path, line: int, why: str) -> InputError:
    return InputError(f"{path}, line {line}: damaged ({why}); restore the file or remove the line")


def _apply(trials: dict[int, Trial], event: dict[str, Any]) -> None:
    kind, number, time = event["event"], int(event["trial"]), float(event["time"])
    if kind == "start":
        trial = trials.setdefault(number, Trial(number, {}, source=str(event["source"])))
        trial.params = dict(event["params"])
        trial.started = time if trial.started is None else trial.started
        trial.status, trial.reason, trial.ended = "running", None, None  # where it goes on
        trial.cause = None
        return
    trial = trials[number]
    if kind == "epoch":
        _add_epoch(
            trial, Epoch(int(event["epoch"]), time, _finite(event["metrics"]), event.get("seconds"))
        )
    elif kind == "end":
        if event["status"] not in STATUSES:
            raise ValueError(f"status {event['status']!r}")
        trial.status, trial.reason, trial.ended = event["status"], event.get("reason"), time
        trial.values = _finite(event.get("values") or {})
        trial.seconds, trial.checkpoint = event.get("seconds"), event.get("checkpoint")
        trial.cause = event.get("cause")
    else:
        raise ValueError(f"event {kind!r}")


def _add_epoch(trial: Trial, epoch: Epoch) -> None:
    """A trial that went on from a checkpoint may run an epoch again: the last report counts."""
    trial.epochs = [each for each in trial.epochs if each.epoch != epoch.epoch]
    trial.epochs.append(epoch)
    trial.epochs.sort(key=lambda each: each.epoch)


def _finite(values: dict[str, Any]) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
