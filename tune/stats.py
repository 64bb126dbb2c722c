"""Figures of a sweep, as pure functions of its records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tune.records import DIVERGED, Objective, Sweep, Trial, kept_value

Floats = npt.NDArray[np.float64]

WITHOUT_VALUE = (DIVERGED, "failed")  # statuses of trials whose epochs count for nothing
RATE = "train.learning_rate"  # what makes a training diverge, mostly
_EPOCHS_KEY = "train.epochs"  # a sweep over it sets each trial's full length
_MANY_FAILED = 0.2  # of the trials
_EDGE = 0.05  # of a parameter's range


# --- scores -------------------------------------------------------------------------------------


def score(trial: Trial, objective: Objective) -> float | None:
    """A trial's value: what its end says, else as if it ended now; None where it failed."""
    if trial.status in WITHOUT_VALUE:
        return None
    if objective.name in trial.values:
        return trial.values[objective.name]
    return kept_value((e.metrics for e in trial.epochs), objective.name, objective.mode)


def main_objective(sweep: Sweep) -> Objective:
    """The objective by which one trial is the best."""
    return Objective(sweep.metric, sweep.mode)


def ended(sweep: Sweep, objectives: Sequence[Objective]) -> list[Trial]:
    """Trials that finished or were stopped, with a value of each objective."""
    return [
        trial
        for trial in sweep.trials
        if trial.status in ("finished", "stopped")
        and all(score(trial, each) is not None for each in objectives)
    ]


def ranked(sweep: Sweep) -> list[tuple[float, Trial]]:
    """Trials that have a value, the best first; ties by number."""
    objective = main_objective(sweep)
    sign = -1 if sweep.mode == "max" else 1
    found = [(value, t) for t in sweep.trials if (value := score(t, objective)) is not None]
    return sorted(found, key=lambda pair: (sign * pair[0], pair[1].number))


def asked(sweep: Sweep) -> str | None:
    """How many trials were configured, and why not as many were trained; None where nothing is odd.

    Returns:
        A sentence or two.
    """
    found = []
    if sweep.exhausted:
        found.append(
            f"{len(sweep.trials)} of {sweep.settings['trials']} trials were trained: sweep.space "
            "has no further configuration."
        )
    if sweep.repeated:
        times = "suggestion" if sweep.repeated == 1 else "suggestions"
        found.append(
            f"{sweep.repeated} {times} had the settings of a trial that was there already, and "
            f"{'was' if sweep.repeated == 1 else 'were'} not trained again."
        )
    return " ".join(found) or None


def about_failures(sweep: Sweep) -> Iterator[str]:
    """How many trials diverged or failed, why, and a remedy."""
    for status in WITHOUT_VALUE:
        failed = [trial for trial in sweep.trials if trial.status == status]
        if not failed:
            continue
        reason, times = Counter(t.reason or "no reason given" for t in failed).most_common(1)[0]
        alike = "all" if times == len(failed) > 1 else f"{times} of them"
        share = len(failed) / len(sweep.trials)
        remedy = " Narrow the space where they lie." if share > _MANY_FAILED else ""
        rates = [t.params[RATE] for t in failed if RATE in t.params]
        if status == DIVERGED and rates:
            remedy = f" The lowest {RATE} of them is {text(min(rates))}: end its range below."
        yield (
            f"{len(failed)} of {len(sweep.trials)} trials {status}, {alike} with: {reason}.{remedy}"
        )


# --- course -------------------------------------------------------------------------------------


def best_so_far(sweep: Sweep) -> pd.DataFrame:
    """The best value known after each report.

    Returns:
        One row a report of an epoch or an end, by time: `seconds` since the first trial's start,
        `epochs` spent by all trials until then, `best` (NaN before the first value), `trial` that
        holds it. Failed trials spend epochs, but hold no value.
    """
    reports: list[tuple[float, int, float | None, int]] = []  # time, epochs, value, trial
    for trial in sweep.trials:
        holds = trial.status not in WITHOUT_VALUE
        for epoch in trial.epochs:
            value = epoch.metrics.get(sweep.metric) if holds else None
            reports.append((epoch.time, 1, value, trial.number))
        if trial.ended is not None:
            value = trial.values.get(sweep.metric) if holds else None
            reports.append((trial.ended, 0, value, trial.number))
    begin = first_start(sweep)
    rows, best, holder, spent = [], float("nan"), -1, 0
    for time, epochs, value, number in sorted(reports, key=lambda report: report[0]):
        spent += epochs
        if value is not None and not (value <= best if sweep.mode == "max" else value >= best):
            best, holder = value, number  # NaN is neither
        rows.append((max(time - begin, 0.0), spent, best, holder))
    return pd.DataFrame(rows, columns=["seconds", "epochs", "best", "trial"])


def first_start(sweep: Sweep) -> float:
    """When the first trial started, in Unix seconds; 0 where nothing says."""
    return min((t.started for t in sweep.trials if t.started is not None), default=0.0)


def cost(trial: Trial) -> float:
    """Seconds of a trial's work: what its end says, or its epochs where they make up more."""
    return max(sum(e.seconds or 0.0 for e in trial.epochs), float(trial.seconds or 0.0))


# --- early stopping -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Savings:
    """What the trials that finished or were stopped spent, against all of them in full."""

    trials: int
    stopped: int
    epochs: int
    full_epochs: int
    seconds: float
    full_seconds: float  # estimated: a trial's missing epochs at its own pace
    other_epochs: (
        int  # of trials that diverged, failed, were interrupted or still run: in neither sum
    )
    other_seconds: float

    @property
    def saved_epochs(self) -> int:
        """Epochs that were not run."""
        return self.full_epochs - self.epochs

    @property
    def saved_seconds(self) -> float:
        """Seconds of work that were not spent, estimated."""
        return self.full_seconds - self.seconds

    @property
    def share(self) -> float | None:
        """Epochs spent over those of all in full; None where nothing ended."""
        return self.epochs / self.full_epochs if self.full_epochs else None


def savings(sweep: Sweep) -> Savings:
    """What early stopping saved.

    A trial in full has `max_epochs`, or its own `train.epochs` where that is searched and smaller;
    where neither is known, as many as the longest trial.
    """
    judged = [t for t in sweep.trials if t.status in ("finished", "stopped")]
    others = [t for t in sweep.trials if t.status not in ("finished", "stopped")]
    paces = [cost(t) / len(t.epochs) for t in judged if t.epochs]
    usual = float(np.median(paces)) if paces else 0.0
    full_epochs, full_seconds = 0, 0.0
    for trial in judged:
        full = full_length(sweep, trial)
        pace = cost(trial) / len(trial.epochs) if trial.epochs else usual
        full_epochs += full
        full_seconds += cost(trial) + pace * (full - len(trial.epochs))
    return Savings(
        trials=len(judged),
        stopped=sum(t.status == "stopped" for t in judged),
        epochs=sum(len(t.epochs) for t in judged),
        full_epochs=full_epochs,
        seconds=sum(map(cost, judged)),
        full_seconds=full_seconds,
        other_epochs=sum(len(t.epochs) for t in others),
        other_seconds=sum(map(cost, others)),
    )


def full_length(sweep: Sweep, trial: Trial) -> int:
    """Epochs of a trial that nothing stops; never fewer than it ran."""
    own = trial.params.get(_EPOCHS_KEY)
    limits = [int(n) for n in (sweep.max_epochs, own) if isinstance(n, int | float)]
    if not limits:
        limits = [max((len(t.epochs) for t in sweep.trials), default=0)]
    return max(min(limits), len(trial.epochs))


def driver_share(sweep: Sweep) -> float | None:
    """Time between a trial's end and the start of the one in its place, over all trials' time.

    None where no trial took another's place.
    """
    attempts = [float(begin) for begin in sweep.settings.get("attempts") or []]
    whole = [
        (trial.started, trial.ended)
        for trial in sweep.trials
        if trial.started is not None and trial.ended is not None
    ]
    ends = sorted(end for _, end in whole)
    gaps: list[float] = []
    for start in sorted(start for start, _ in whole):
        before = [end for end in ends if end <= start]
        if not before:
            continue
        free = before[0]
        ends.remove(free)
        if not any(free < begin <= start for begin in attempts):
            gaps.append(start - free)
    total = sum(end - start for start, end in whole)
    return sum(gaps) / total if gaps and total > 0 else None


# --- tables -------------------------------------------------------------------------------------


def parameters(sweep: Sweep) -> list[str]:
    """Config keys that were searched or set, in the space's order."""
    keys = dict.fromkeys(sweep.space)
    for trial in sweep.trials:
        keys |= dict.fromkeys(trial.params)
    return list(keys)


def trials_table(sweep: Sweep) -> pd.DataFrame:
    """One row a trial, the best first, those without a value last.

    Columns: `trial`, `status`, `source`, the objectives' values, `epochs`, `seconds` (of work),
    `reason`, and the parameters by key (None where a trial does not have one).
    """
    order = {trial.number: place for place, (_, trial) in enumerate(ranked(sweep))}
    trials = sorted(sweep.trials, key=lambda t: (order.get(t.number, len(order)), t.number))
    rows = [
        {
            "trial": trial.number,
            "status": trial.status,
            "source": trial.source,
            **{each.name: score(trial, each) for each in sweep.objectives},
            "epochs": len(trial.epochs),
            "seconds": round(cost(trial), 3),
            "reason": trial.reason,
            **{key: trial.params.get(key) for key in parameters(sweep)},
        }
        for trial in trials
    ]
    return pd.DataFrame(rows, dtype=object)  # an integer stays one where other trials lack it


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest end of each dotted key that no other key shares."""
    names = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            end = ".".join(parts[-length:])
            if sum(k == end or k.endswith(f".{end}") for k in keys) == 1:
                break
        names[key] = end
    return names


def text(value: Any) -> str:
    """A parameter's value as people read it."""
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

    def place(self, value: Any) -> float | None:
        """Where a value lies, 0 to 1; None for no value."""
        if value is None and "null" not in self.categories:
            return None
        if self.categories:
            steps = len(self.categories) - 1
            return self.categories.index(text(value)) / steps if steps else 0.5
        low, high, at = (_log10(n) if self.log else n for n in (self.low, self.high, float(value)))
        return (at - low) / (high - low) if high > low else 0.5


def _log10(number: float) -> float:
    return float(np.log10(number))


def axis_of(sweep: Sweep, key: str) -> Axis:
    """A parameter's axis: the space's bounds, widened to hold every trial's value."""
    spec = sweep.space.get(key, {})
    values = [t.params[key] for t in sweep.trials if key in t.params]
    kind = spec.get("kind")
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    bounds = [n for n in (spec.get("low"), spec.get("high")) if isinstance(n, int | float)]
    if kind == "choice" or not numeric or not (values or bounds):
        texts = dict.fromkeys(text(value) for value in [*(spec.get("choices") or []), *values])
        return Axis(key, False, 0.0, 1.0, tuple(texts) or ("null",))
    low, high = min([*bounds, *values]), max([*bounds, *values])
    return Axis(key, (kind == "loguniform" or bool(spec.get("log"))) and low > 0, low, high, ())


def at_edge(axis: Axis, value: Any) -> str | None:
    """`lower` or `upper` where a number lies in the outer 5 % of its range."""
    at = None if axis.categories or axis.high <= axis.low else axis.place(value)
    if at is None or _EDGE < at < 1 - _EDGE:
        return None
    return "lower" if at <= _EDGE else "upper"


def smoothed(x: Floats, y: Floats, values: Floats, cells: int = 60) -> Floats:
    """Values on a grid over the unit square, as a kernel-weighted mean of the points around.

    Nadaraya, "On Estimating Regression" (1964), and Watson, "Smooth Regression Analysis" (1964),
    with a Gaussian kernel as wide as Scott's rule says for two dimensions.

    Args:
        x, y: places of the points, 0 to 1, shape (points,).
        values: theirs, shape (points,).
        cells: the grid's side.

    Returns:
        Shape (cells, cells), rows along y; NaN further than 1.5 widths from every point.
    """
    width = min(max(0.3 * len(x) ** (-1 / 6), 0.06), 0.2)
    grid = np.linspace(0, 1, cells)
    across = (grid[:, None] - x[None, :]) ** 2  # (cells, points)
    down = (grid[:, None] - y[None, :]) ** 2
    weights_x, weights_y = (np.exp(-square / (2 * width**2)) for square in (across, down))
    total = weights_y @ weights_x.T
    found: Floats = (weights_y * values) @ weights_x.T / np.maximum(total, 1e-300)
    nearest = (down[:, None, :] + across[None, :, :]).min(-1)
    found[nearest > (1.5 * width) ** 2] = np.nan
    return found
