"""Statistics of a sweep, as pure functions of its records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import JsonValue

from tune.records import Objective, ParameterRecord, Sweep, Trial, kept_value
from tune.trial_events import DIVERGED

Floats = npt.NDArray[np.float64]

WITHOUT_VALUE = (DIVERGED, "failed")  # statuses of trials whose epochs do not count
LEARNING_RATE = "train.learning_rate"  # the setting that makes most trainings diverge
_EPOCHS_KEY = "train.epochs"  # a sweep over this setting sets each trial's full epochs
_MANY_FAILED = 0.2  # share of the trials
_EDGE = 0.05  # share of a parameter's range


# --- scores -------------------------------------------------------------------------------------


def score(trial: Trial, objective: Objective) -> float | None:
    """Return a trial's value, of a running trial as if it ended now; None for a failed trial."""
    if trial.status in WITHOUT_VALUE:
        return None
    if objective.name in trial.values:
        return trial.values[objective.name]
    return kept_value((e.metrics for e in trial.epochs), objective.name, objective.mode)


def main_objective(sweep: Sweep) -> Objective:
    """Return the objective by which one trial is the best."""
    return Objective(name=sweep.metric, mode=sweep.mode)


def trials_with_values(sweep: Sweep, objectives: Sequence[Objective]) -> list[Trial]:
    """Return the trials that finished or were stopped with a value of each objective."""
    return [
        trial
        for trial in sweep.trials
        if trial.status in ("finished", "stopped")
        and all(score(trial, objective) is not None for objective in objectives)
    ]


def ranked(sweep: Sweep) -> list[tuple[float, Trial]]:
    """Return the trials that have a value, with it, the best first; ties by number."""
    objective = main_objective(sweep)
    sign = -1 if sweep.mode == "max" else 1
    scores = [(value, t) for t in sweep.trials if (value := score(t, objective)) is not None]
    return sorted(scores, key=lambda pair: (sign * pair[0], pair[1].number))


def trial_count_note(sweep: Sweep) -> str | None:
    """Return why fewer trials were trained than configured, or suggested; None where none were.

    Returns:
        A sentence or two.
    """
    sentences = []
    if sweep.exhausted:
        sentences.append(
            f"{len(sweep.trials)} of {sweep.settings.trials} trials were trained: sweep.space "
            "has no further configuration."
        )
    if sweep.repeated:
        suggestions = (
            "1 suggestion was" if sweep.repeated == 1 else f"{sweep.repeated} suggestions were"
        )
        sentences.append(
            f"{suggestions} not trained again: an earlier trial had the same settings."
        )
    return " ".join(sentences) or None


def failure_notes(sweep: Sweep) -> Iterator[str]:
    """Yield how many trials diverged or failed, why, and a remedy."""
    for status in WITHOUT_VALUE:
        failed = [trial for trial in sweep.trials if trial.status == status]
        if not failed:
            continue
        reason, count = Counter(t.reason or "no reason given" for t in failed).most_common(1)[0]
        share = "all" if count == len(failed) > 1 else f"{count} of them"
        remedy = _failure_remedy(sweep, status, failed)
        yield (
            f"{len(failed)} of {len(sweep.trials)} trials {status}, {share} with: {reason}.{remedy}"
        )


def _failure_remedy(sweep: Sweep, status: str, failed: Sequence[Trial]) -> str:
    rates = _numbers(t.params[LEARNING_RATE] for t in failed if LEARNING_RATE in t.params)
    if status == DIVERGED and rates:
        lowest = format_value(min(rates))
        return f" The lowest {LEARNING_RATE} of them is {lowest}: end its range below."
    is_many = len(failed) / len(sweep.trials) > _MANY_FAILED
    return " Narrow the space around them." if is_many else ""


# --- course -------------------------------------------------------------------------------------


def best_so_far(sweep: Sweep) -> pd.DataFrame:
    """Return the best value after each report.

    Returns:
        One row per report of an epoch or an end, by time: `seconds` since the first trial's start,
        `epochs` of all trials until then, `best` (NaN before the first value), and the `trial` with
        that value. Failed trials have epochs, but no value.
    """
    reports: list[tuple[float, int, float | None, int]] = []  # time, epochs, value, trial
    for trial in sweep.trials:
        has_value = trial.status not in WITHOUT_VALUE
        for epoch in trial.epochs:
            value = epoch.metrics.get(sweep.metric) if has_value else None
            reports.append((epoch.time, 1, value, trial.number))
        if trial.ended is not None:
            value = trial.values.get(sweep.metric) if has_value else None
            reports.append((trial.ended, 0, value, trial.number))
    begin = first_start(sweep)
    rows, best, best_trial, spent = [], float("nan"), -1, 0
    for time, epochs, value, number in sorted(reports, key=lambda report: report[0]):
        spent += epochs
        if value is not None and not (value <= best if sweep.mode == "max" else value >= best):
            best, best_trial = value, number  # a comparison with NaN is false
        rows.append((max(time - begin, 0.0), spent, best, best_trial))
    return pd.DataFrame(rows, columns=["seconds", "epochs", "best", "trial"])


def first_start(sweep: Sweep) -> float:
    """Return when the first trial started, in Unix seconds; 0 before."""
    return min((t.started for t in sweep.trials if t.started is not None), default=0.0)


def work_seconds(trial: Trial) -> float:
    """Return the seconds of a trial's work: of its end event or its epochs, the larger."""
    return max(sum(e.seconds or 0.0 for e in trial.epochs), float(trial.seconds or 0.0))


# --- early stopping -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Savings:
    """Epochs and seconds of the trials that finished or were stopped, and those of full trials."""

    trials: int
    stopped: int
    epochs: int
    full_epochs: int
    seconds: float
    full_seconds: float  # estimated: a trial's missing epochs at its own pace
    other_epochs: int  # of other trials, which are in none of the sums above
    other_seconds: float

    @property
    def saved_epochs(self) -> int:
        """Epochs that were not trained."""
        return self.full_epochs - self.epochs

    @property
    def saved_seconds(self) -> float:
        """Seconds of work that were not spent, estimated."""
        return self.full_seconds - self.seconds

    @property
    def share(self) -> float | None:
        """Epochs over those of full trials; None where no trial ended."""
        return self.epochs / self.full_epochs if self.full_epochs else None


def savings(sweep: Sweep) -> Savings:
    """Return what early stopping saved.

    A full trial has `max_epochs`, or its own `train.epochs` where the sweep varies that setting and
    the value is smaller. Where neither is known, it has as many epochs as the longest trial.
    """
    judged = [t for t in sweep.trials if t.status in ("finished", "stopped")]
    others = [t for t in sweep.trials if t.status not in ("finished", "stopped")]
    paces = [work_seconds(t) / len(t.epochs) for t in judged if t.epochs]
    median_pace = float(np.median(paces)) if paces else 0.0
    epochs_in_full, full_seconds = 0, 0.0
    for trial in judged:
        full = full_epochs(sweep, trial)
        pace = work_seconds(trial) / len(trial.epochs) if trial.epochs else median_pace
        epochs_in_full += full
        full_seconds += work_seconds(trial) + pace * (full - len(trial.epochs))
    return Savings(
        trials=len(judged),
        stopped=sum(t.status == "stopped" for t in judged),
        epochs=sum(len(t.epochs) for t in judged),
        full_epochs=epochs_in_full,
        seconds=sum(map(work_seconds, judged)),
        full_seconds=full_seconds,
        other_epochs=sum(len(t.epochs) for t in others),
        other_seconds=sum(map(work_seconds, others)),
    )


def full_epochs(sweep: Sweep, trial: Trial) -> int:
    """Return the epochs of a trial if nothing stopped it; never fewer than its own."""
    own = trial.params.get(_EPOCHS_KEY)
    limits = [int(n) for n in (sweep.max_epochs, own) if isinstance(n, int | float)]
    if not limits:
        limits = [max((len(t.epochs) for t in sweep.trials), default=0)]
    return max(min(limits), len(trial.epochs))


def driver_share(sweep: Sweep) -> float | None:
    """Return the time between a trial's end and the next trial's start, over all trials' time.

    None where no trial followed another.
    """
    attempts = sweep.settings.attempts
    spans = [
        (trial.started, trial.ended)
        for trial in sweep.trials
        if trial.started is not None and trial.ended is not None
    ]
    ends = sorted(end for _, end in spans)
    gaps: list[float] = []
    for start in sorted(start for start, _ in spans):
        earlier_ends = [end for end in ends if end <= start]
        if not earlier_ends:
            continue
        end = earlier_ends[0]
        ends.remove(end)
        if not any(end < attempt <= start for attempt in attempts):
            gaps.append(start - end)
    total = sum(end - start for start, end in spans)
    return sum(gaps) / total if gaps and total > 0 else None


# --- tables -------------------------------------------------------------------------------------


def parameter_keys(sweep: Sweep) -> list[str]:
    """Return the config keys of the space and of the trials, in the space's order."""
    keys = dict.fromkeys(sweep.space)
    for trial in sweep.trials:
        keys |= dict.fromkeys(trial.params)
    return list(keys)


def trials_table(sweep: Sweep) -> pd.DataFrame:
    """Return one row per trial, the best first, trials without a value last.

    Columns: `trial`, `status`, `source`, the objectives' values, `epochs`, `seconds` (of work),
    `reason`, and the parameters by key (None where a trial lacks a key).
    """
    order = {trial.number: rank for rank, (_, trial) in enumerate(ranked(sweep))}
    trials = sorted(sweep.trials, key=lambda t: (order.get(t.number, len(order)), t.number))
    rows = [
        {
            "trial": trial.number,
            "status": trial.status,
            "source": trial.source,
            **{o.name: score(trial, o) for o in sweep.objectives},
            "epochs": len(trial.epochs),
            "seconds": round(work_seconds(trial), 3),
            "reason": trial.reason,
            **{key: trial.params.get(key) for key in parameter_keys(sweep)},
        }
        for trial in trials
    ]
    return pd.DataFrame(rows, dtype=object)  # integers stay integers next to missing values


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of each dotted key that no other key shares."""
    names = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            end = ".".join(parts[-length:])
            if sum(k == end or k.endswith(f".{end}") for k in keys) == 1:
                break
        names[key] = end
    return names


def format_value(value: Any) -> str:
    """Return a parameter's value for people."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False, default=str)


# --- axes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """A parameter's range: numbers from `low` to `high`, or categories."""

    key: str
    log: bool
    low: float
    high: float
    categories: tuple[str, ...]  # as text; empty for numbers

    def position(self, value: Any) -> float | None:
        """Return a value's position on the axis, 0 to 1; None for no value."""
        if value is None and "null" not in self.categories:
            return None
        if self.categories:
            steps = len(self.categories) - 1
            return self.categories.index(format_value(value)) / steps if steps else 0.5
        numbers = (self.low, self.high, float(value))
        low, high, number = (_log10(n) if self.log else n for n in numbers)
        return (number - low) / (high - low) if high > low else 0.5


def _log10(number: float) -> float:
    return float(np.log10(number))


def _numbers(values: Iterable[JsonValue]) -> list[int | float]:
    """Return the values that are numbers."""
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def axis_of(sweep: Sweep, key: str) -> Axis:
    """Return a parameter's axis: the space's bounds, widened to contain every trial's value."""
    record = sweep.space.get(key) or ParameterRecord(kind="")
    values = [t.params[key] for t in sweep.trials if key in t.params]
    numbers = _numbers(values)
    bounds = [n for n in (record.low, record.high) if n is not None]
    if record.kind == "choice" or len(numbers) < len(values) or not (values or bounds):
        texts = dict.fromkeys(format_value(value) for value in [*(record.choices or []), *values])
        return Axis(key, False, 0.0, 1.0, tuple(texts) or ("null",))
    low, high = min([*bounds, *numbers]), max([*bounds, *numbers])
    return Axis(key, record.kind == "loguniform" and low > 0, low, high, ())


def at_edge(axis: Axis, value: Any) -> str | None:
    """Return `lower` or `upper` for a number in the outer 5 % of its range; None for others."""
    position = None if axis.categories or axis.high <= axis.low else axis.position(value)
    if position is None or _EDGE < position < 1 - _EDGE:
        return None
    return "lower" if position <= _EDGE else "upper"


def smoothed(x: Floats, y: Floats, values: Floats, cells: int = 60) -> Floats:
    """Return values on a grid over the unit square, as kernel-weighted means of nearby points.

    Nadaraya, "On Estimating Regression" (1964), and Watson, "Smooth Regression Analysis" (1964),
    with a Gaussian kernel of the width of Scott's rule for two dimensions.

    Args:
        x, y: coordinates of the points, 0 to 1, shape (points,).
        values: of the points, shape (points,).
        cells: cells per side of the grid.

    Returns:
        Shape (cells, cells), rows along y; NaN further than 1.5 widths from every point.
    """
    width = min(max(0.3 * len(x) ** (-1 / 6), 0.06), 0.2)
    grid = np.linspace(0, 1, cells)
    across = (grid[:, None] - x[None, :]) ** 2  # (cells, points)
    down = (grid[:, None] - y[None, :]) ** 2
    weights_x, weights_y = (np.exp(-square / (2 * width**2)) for square in (across, down))
    total = weights_y @ weights_x.T
    surface: Floats = (weights_y * values) @ weights_x.T / np.maximum(total, 1e-300)
    nearest = (down[:, None, :] + across[None, :, :]).min(-1)
    surface[nearest > (1.5 * width) ** 2] = np.nan
    return surface
