"""The results of sweeps as a page, pictures and tables: `python -m tune.analysis RUN [RUN ...]`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from finsent.errors import InputError, UserError
from finsent.files import make_dir, staged_dir, write_text
from finsent.reports.page import render
from finsent.reports.pictures import draw_all
from finsent.stdout import write_line
from tune.importance import importances, pareto_front
from tune.picture_style import View
from tune.pictures import pictures_of
from tune.records import DEFAULT, Params, Sweep, Trial, Verification, read_sweep
from tune.stats import (
    WITHOUT_VALUE,
    at_edge,
    axis_of,
    failure_notes,
    format_value,
    full_epochs,
    main_objective,
    parameter_keys,
    ranked,
    savings,
    short_names,
    trial_count_note,
    trials_table,
    trials_with_values,
)

PAGE = "sweep.html"
PICTURES = "sweep-pictures"

_MIN_IMPORTANCE = 0.1  # with less, a value at the edge of its range has no meaning


class BestTrial(TypedDict):
    """The best trial of a sweep."""

    trial: int
    value: float  # of the metric
    params: Params


class Analysis(TypedDict):
    """Result of the analysis."""

    page: str
    trials: int
    best: BestTrial
    importances: dict[str, float]  # of the metric, by parameter
    spent_share: float | None  # epochs over those of full trials
    seconds: float


def analyze(run_dirs: Sequence[Path | str], out: Path | str | None = None) -> Analysis:
    """Write `sweep.html`, `sweep-pictures/*.png`, `trials.csv` and `importances.csv`.

    Each file replaces an older one atomically, so a running sweep can be analyzed repeatedly. With
    several sweeps the page is of the first sweep, compared with the others (`comparison.csv`).

    Args:
        run_dirs: sweeps' directories, at least one.
        out: output directory; the first sweep's directory by default.

    Returns:
        The result, as the command prints it.

    Raises:
        InputError: not a sweep's directory, damaged, no trial has ended with a value, sweeps of
            different metrics, or `out` cannot be written.
    """
    begun = time.perf_counter()
    sweep, *others = sweeps = [read_sweep(folder) for folder in run_dirs]
    for analyzed in sweeps:
        _check(analyzed, sweep)
    importance = importances(sweep)
    view = View(
        sweep=sweep,
        axes={key: axis_of(sweep, key) for key in parameter_keys(sweep)},
        importances=importance,
        front=pareto_front(sweep) if len(sweep.objectives) > 1 else [],
        others=others,
    )
    out_dir = make_dir(Path(out) if out else sweep.run_dir, "--out")
    with staged_dir(out_dir / PICTURES, replace=True) as folder:
        page = render(
            "tune/sweep.html.j2", draw_all(pictures_of(view), view, folder), **_page_values(view)
        )
    trials = trials_table(sweep)
    write_text(out_dir / "trials.csv", trials.to_csv(index=False))
    write_text(out_dir / "importances.csv", importance.table.to_csv(index=False))
    if others:
        write_text(out_dir / "comparison.csv", comparison(sweeps).to_csv(index=False))
    write_text(out_dir / PAGE, page)
    value, best = ranked(sweep)[0]
    table = importance.table[importance.table["objective"] == sweep.metric]
    return {
        "page": str(out_dir / PAGE),
        "trials": len(sweep.trials),
        "best": {"trial": best.number, "value": value, "params": best.params},
        "importances": dict(zip(table["parameter"], table["importance"], strict=True)),
        "spent_share": savings(sweep).share,
        "seconds": round(time.perf_counter() - begun, 3),
    }


def _check(sweep: Sweep, first: Sweep) -> None:
    if (sweep.metric, sweep.mode) != (first.metric, first.mode):
        raise InputError(
            f"{str(sweep.run_dir)!r} optimizes {sweep.metric} ({sweep.mode}), "
            f"{str(first.run_dir)!r} {first.metric} ({first.mode}). Name sweeps of one metric."
        )
    if not trials_with_values(sweep, [main_objective(sweep)]):
        counts = Counter(trial.status for trial in sweep.trials)
        failed = [trial for trial in sweep.trials if trial.status in WITHOUT_VALUE]
        reasons = Counter(trial.reason for trial in failed if trial.reason)
        most = f"; most often: {reasons.most_common(1)[0][0]}" if reasons else ""
        states = ", ".join(f"{n} {status}" for status, n in counts.items()) or "none was started"
        raise InputError(
            f"{str(sweep.run_dir)!r}: no trial has ended with a value of {sweep.metric} "
            f"({states}{most}). Wait for a trial, or run the sweep again."
        )


# --- page ---------------------------------------------------------------------------------------


def _page_values(view: View) -> dict[str, object]:
    """Return the variables of the page's template."""
    sweep = view.sweep
    value, best = ranked(sweep)[0]
    table = trials_table(sweep)
    values = {trial.number: value for value, trial in ranked(sweep)}
    return {
        "sweep": sweep,
        "best": best,
        "value": value,
        "warnings": list(warnings(view)),
        "trial_count_note": trial_count_note(sweep),
        "counts": dict(Counter(trial.status for trial in sweep.trials)),
        "savings": savings(sweep),
        "names": short_names(parameter_keys(sweep)),
        "rows": table.to_dict("records"),
        "parameters": parameter_keys(sweep),
        "importances": view.importances,
        "verification": sweep.verification,
        "candidates": _candidates(sweep.verification, values),
        "front": [trial for trial in sweep.trials if trial.number in view.front],
        "sweeps": comparison([sweep, *view.others]).to_dict("records") if view.others else [],
        "duration": duration,
        "moment": moment,
        "text": format_value,
        "is_number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    }


@dataclass(frozen=True)
class CandidateRow:
    """A row of the page's table of verified configurations."""

    name: str
    sweep: float | None  # the value in the sweep
    mean: float | None
    std: float | None
    seeds: list[float | None]
    chosen: bool


def _candidates(verification: Verification | None, values: dict[int, float]) -> list[CandidateRow]:
    """Return the verified configurations, the settings without any change last.

    Args:
        values: of the sweep's trials, by number.
    """
    if verification is None:
        return []
    return [
        CandidateRow(
            name="default recipe" if row.trial is None else f"trial {row.trial}",
            sweep=row.sweep if row.trial is None else values.get(row.trial),
            mean=row.mean,
            std=row.std,
            seeds=[seed.validation for seed in row.seeds],
            chosen=verification.chosen == (DEFAULT if row.trial is None else row.trial),
        )
        for row in [*verification.candidates, verification.default]
    ]


def comparison(sweeps: Sequence[Sweep]) -> pd.DataFrame:
    """Return one row per sweep: its search, its cost and its best."""
    rows = []
    for sweep in sweeps:
        value, best = ranked(sweep)[0]
        saved = savings(sweep)
        verification = sweep.verification
        rows.append(
            {
                "sweep": sweep.name,
                "search": sweep.settings.search,
                "scheduler": sweep.settings.scheduler,
                "trials": len(sweep.trials),
                "epochs": saved.epochs + saved.other_epochs,
                "seconds": round(saved.seconds + saved.other_seconds, 1),
                "spent_share": saved.share,
                "best": value,
                "trial": best.number,
                "verified": verification and verification.verified,
                "luck": verification and verification.luck,
            }
        )
    table = pd.DataFrame(rows)
    return table.astype(object).where(table.notna(), None)


def moment(when: Any) -> str:
    """Return a recorded time to the second, with `UTC` for +00:00."""
    return re.sub(r"(\.\d+)?(\+00:00|Z)$", " UTC", str(when).replace("T", " ", 1))


def duration(seconds: float | None) -> str:
    """Return a duration for people: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return "\N{EN DASH}"
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{total} s"
    minutes, remainder = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {remainder} s" if remainder else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


# --- warnings -----------------------------------------------------------------------------------


def warnings(view: View) -> Iterator[str]:
    """Yield reasons to doubt the results, each with its number and a remedy."""
    sweep = view.sweep
    value, best = ranked(sweep)[0]
    if not sweep.finished:
        running = sum(trial.status == "running" for trial in sweep.trials)
        yield (
            f"The sweep has not ended ({running} trials without an end): it still runs, or was "
            "killed and resumes with the same command. All numbers below may change."
        )
    count = len(trials_with_values(sweep, [main_objective(sweep)]))
    if sweep.finished and not sweep.verification and count > 1:
        yield (
            f"The best value, {value:.4f}, is the best of {count} trials and so partly luck. "
            "No configuration was trained again with other seeds to measure the luck."
        )
    if sweep.verification:
        yield from _verification_warnings(sweep.verification)
    yield from failure_notes(sweep)
    yield from _edge_warnings(view, best)
    yield from _course_warnings(sweep, best)
    if view.importances.note:
        yield f"Importances: {view.importances.note}."


def _verification_warnings(verification: Verification) -> Iterator[str]:
    if verification.chosen == DEFAULT:
        yield (
            "Trained again with several seeds, no candidate beat the default recipe: keep the "
            "recipe, or search elsewhere or longer."
        )
    luck, default_mean = verification.luck, verification.default.mean
    if luck is None or default_mean is None:
        return
    gain = verification.verified - default_mean
    if abs(luck) > abs(gain) > 0:
        yield (
            f"Luck ({luck:+.4f}) was larger than the sweep's gain over the default recipe "
            f"({gain:+.4f}): more seeds or more validation rows would tell more than more trials."
        )


def _edge_warnings(view: View, best: Trial) -> Iterator[str]:
    sweep, table = view.sweep, view.importances.table
    table = table[table["objective"] == sweep.metric]
    known = table["importance"].where(table["importance"] > table["chance"], 0.0)
    weights = dict(zip(table["parameter"], known, strict=True))
    for key, value in best.params.items():
        edge = at_edge(view.axes[key], value)
        if edge and key in sweep.space and weights.get(key, 1.0) >= _MIN_IMPORTANCE:
            low, high = (format_value(n) for n in (view.axes[key].low, view.axes[key].high))
            yield (
                f"The best trial's {key}, {format_value(value)}, is at the {edge} end of its range "
                f"({low} to {high}): better values may be outside, widen the range."
            )


def _course_warnings(sweep: Sweep, best: Trial) -> Iterator[str]:
    values = [e.metrics[sweep.metric] for e in best.epochs if sweep.metric in e.metrics]
    is_full = best.status == "finished" and len(best.epochs) == full_epochs(sweep, best)
    if is_full and len(values) > 1:
        last, earlier = values[-1], values[:-1]
        if last > max(earlier) if sweep.mode == "max" else last < min(earlier):
            yield (
                f"The best trial was best at its last epoch ({best.epochs[-1].epoch}): longer "
                "trials may be better, and rank differently."
            )


# --- command ------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, which prints one JSON object, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tune.analysis",
        description="Write sweep.html, its pictures, trials.csv and importances.csv. The sweep may "
        "still run. Exit code: 0 done, 2 bad input, 1 another error.",
    )
    parser.add_argument(
        "run",
        nargs="+",
        metavar="RUN",
        help="a sweep's directory; further directories are compared with the first",
    )
    parser.add_argument("--out", metavar="DIR", help="output directory; the first RUN by default")
    arguments = parser.parse_args(argv)
    try:
        result = analyze(arguments.run, arguments.out)
    except UserError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    write_line(json.dumps(result, ensure_ascii=False, default=str), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
