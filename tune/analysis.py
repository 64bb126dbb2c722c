"""What sweeps found, as a page, pictures and tables: `python -m tune.analysis RUN [RUN ...]`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from finsent.errors import InputError, UserError
from finsent.files import make_dir, staged_dir, write_text
from finsent.reports.page import render
from finsent.reports.pictures import draw_all
from finsent.stdout import write_line
from tune.importance import importances, pareto_front
from tune.picture_style import View
from tune.pictures import pictures_of
from tune.records import Sweep, Trial, read_sweep
from tune.stats import (
    WITHOUT_VALUE,
    about_failures,
    asked,
    at_edge,
    axis_of,
    ended,
    full_length,
    main_objective,
    parameters,
    ranked,
    savings,
    short_names,
    text,
    trials_table,
)

PAGE = "sweep.html"
PICTURES = "sweep-pictures"

Result = dict[str, Any]

_MATTERS = 0.1  # of the importance: below, a value at the edge of its range says nothing


def analyze(run_dirs: Sequence[Path | str], out: Path | str | None = None) -> Result:
    """Write `sweep.html`, `sweep-pictures/*.png`, `trials.csv` and `importances.csv`.

    Each replaces an older one as a whole, so a running sweep can be analyzed again and again. With
    several sweeps the page is the first one's; the others are set beside it (`comparison.csv`).

    Args:
        run_dirs: sweeps' directories, at least one.
        out: where to write; the first sweep's directory by default.

    Returns:
        `page`, `trials`, `best` (trial, value, params), `importances` of the metric by parameter,
        `spent_share` (epochs over those of all trials in full), `seconds`.

    Raises:
        InputError: not a sweep's directory, damaged, no trial has ended with a value, sweeps of
            different metrics, or `out` cannot be written.
    """
    begun = time.perf_counter()
    sweep, *others = sweeps = [read_sweep(folder) for folder in run_dirs]
    for each in sweeps:
        _check(each, sweep)
    found = importances(sweep)
    view = View(
        sweep=sweep,
        axes={key: axis_of(sweep, key) for key in parameters(sweep)},
        importances=found,
        front=pareto_front(sweep) if len(sweep.objectives) > 1 else [],
        others=others,
    )
    place = make_dir(Path(out) if out else sweep.run_dir, "--out")
    with staged_dir(place / PICTURES, replace=True) as folder:
        page = render(
            "tune/sweep.html.j2", draw_all(pictures_of(view), view, folder), **_values(view)
        )
    trials = trials_table(sweep)
    write_text(place / "trials.csv", trials.to_csv(index=False))
    write_text(place / "importances.csv", found.table.to_csv(index=False))
    if others:
        write_text(place / "comparison.csv", comparison(sweeps).to_csv(index=False))
    write_text(place / PAGE, page)
    value, best = ranked(sweep)[0]
    table = found.table[found.table["objective"] == sweep.metric]
    return {
        "page": str(place / PAGE),
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
            f"{str(first.run_dir)!r} {first.metric} ({first.mode}): name sweeps of one metric"
        )
    if not ended(sweep, [main_objective(sweep)]):
        counts = Counter(trial.status for trial in sweep.trials)
        failed = [trial for trial in sweep.trials if trial.status in WITHOUT_VALUE]
        reasons = Counter(trial.reason for trial in failed if trial.reason)
        most = f"; most often: {reasons.most_common(1)[0][0]}" if reasons else ""
        states = ", ".join(f"{n} {status}" for status, n in counts.items()) or "none was started"
        raise InputError(
            f"{str(sweep.run_dir)!r}: no trial has ended with a value of {sweep.metric} "
            f"({states}{most}); there is nothing to analyze yet"
        )


# --- page ---------------------------------------------------------------------------------------


def _values(view: View) -> Result:
    """What the page shows."""
    sweep = view.sweep
    value, best = ranked(sweep)[0]
    table = trials_table(sweep)
    verification = sweep.verification or {}
    reached = {trial.number: value for value, trial in ranked(sweep)}
    return {
        "sweep": sweep,
        "best": best,
        "value": value,
        "warnings": list(warnings(view)),
        "asked": asked(sweep),
        "counts": dict(Counter(trial.status for trial in sweep.trials)),
        "savings": savings(sweep),
        "names": short_names(parameters(sweep)),
        "rows": table.to_dict("records"),
        "parameters": parameters(sweep),
        "importances": view.importances,
        "verification": verification,
        "candidates": _candidates(verification, reached),
        "front": [trial for trial in sweep.trials if trial.number in view.front],
        "sweeps": comparison([sweep, *view.others]).to_dict("records") if view.others else [],
        "duration": duration,
        "moment": moment,
        "text": text,
        "is_number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    }


def _candidates(verification: Result, reached: dict[int, float]) -> list[Result]:
    """What was trained again with several seeds, the best mean first, the default recipe last."""
    rows = []
    default = verification.get("default")
    for each in [*(verification.get("candidates") or []), *([default] if default else [])]:
        trial = None if each is default else each.get("trial")
        rows.append(
            {
                "name": "default recipe" if trial is None else f"trial {trial}",
                "sweep": each.get("sweep") if trial is None else reached.get(trial),
                "mean": each.get("mean"),
                "std": each.get("std"),
                "seeds": [s.get("validation") for s in each.get("seeds") or []],
                "chosen": verification.get("chosen") == ("default" if trial is None else trial),
            }
        )
    return rows


def comparison(sweeps: Sequence[Sweep]) -> pd.DataFrame:
    """One row a sweep: what it searched, spent and found."""
    rows = []
    for sweep in sweeps:
        value, best = ranked(sweep)[0]
        saved = savings(sweep)
        verification = sweep.verification or {}
        rows.append(
            {
                "sweep": sweep.name,
                "search": sweep.settings.get("search"),
                "scheduler": sweep.settings.get("scheduler"),
                "trials": len(sweep.trials),
                "epochs": saved.epochs + saved.other_epochs,
                "seconds": round(saved.seconds + saved.other_seconds, 1),
                "spent_share": saved.share,
                "best": value,
                "trial": best.number,
                "verified": verification.get("verified"),
                "luck": verification.get("luck"),
            }
        )
    table = pd.DataFrame(rows)
    return table.astype(object).where(table.notna(), None)


def moment(when: Any) -> str:
    """A time as a sweep records it, to the second; `UTC` in the place of +00:00."""
    return re.sub(r"(\.\d+)?(\+00:00|Z)$", " UTC", str(when).replace("T", " ", 1))


def duration(seconds: float | None) -> str:
    """A time as people say it: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return "\N{EN DASH}"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


# --- warnings -----------------------------------------------------------------------------------


def warnings(view: View) -> Iterator[str]:
    """What should give pause, each with its number and a remedy."""
    sweep = view.sweep
    value, best = ranked(sweep)[0]
    if not sweep.finished:
        running = sum(trial.status == "running" for trial in sweep.trials)
        yield (
            f"The sweep has not ended ({running} trials without an end): it still runs, or was "
            "killed and goes on with the same command. All below may change."
        )
    count = len(ended(sweep, [main_objective(sweep)]))
    if sweep.finished and not sweep.verification and count > 1:
        yield (
            f"The best value, {value:.4f}, is the best of {count} and so "
            "partly luck; nothing was trained again with other seeds to say how much."
        )
    yield from _about_verification(sweep)
    yield from about_failures(sweep)
    yield from _about_best(view, best)
    if view.importances.note:
        yield f"Importances: {view.importances.note}."


def _about_verification(sweep: Sweep) -> Iterator[str]:
    verification = sweep.verification or {}
    if verification.get("chosen") == "default":
        yield (
            "Trained again with several seeds, no candidate beat the default recipe: keep it, or "
            "search elsewhere or longer."
        )
    luck, default = verification.get("luck"), verification.get("default") or {}
    verified = verification.get("verified")
    if luck is not None and verified is not None and default.get("mean") is not None:
        gain = abs(verified - default["mean"])
        if abs(luck) > gain > 0:
            yield (
                f"Luck ({luck:+.4f}) was larger than what the sweep gained over the default recipe "
                f"({verified - default['mean']:+.4f}): more seeds or more validation rows would "
                "say more than more trials."
            )


def _about_best(view: View, best: Trial) -> Iterator[str]:
    sweep = view.sweep
    table = view.importances.table
    table = table[table["objective"] == sweep.metric]
    known = table["importance"].where(table["importance"] > table["chance"], 0.0)
    weights = dict(zip(table["parameter"], known, strict=True))
    for key, value in best.params.items():
        edge = at_edge(view.axes[key], value)
        if edge and key in sweep.space and weights.get(key, 1.0) >= _MATTERS:
            axis = view.axes[key]
            yield (
                f"The best trial's {key}, {text(value)}, is at the {edge} end of its range "
                f"({text(axis.low)} to {text(axis.high)}): better ones may lie outside, widen it."
            )
    course = [e.metrics[sweep.metric] for e in best.epochs if sweep.metric in e.metrics]
    whole = best.status == "finished" and len(best.epochs) == full_length(sweep, best)
    if whole and len(course) > 1:
        last, before = course[-1], course[:-1]
        if last > max(before) if sweep.mode == "max" else last < min(before):
            yield (
                f"The best trial was best at its last epoch ({best.epochs[-1].epoch}): longer "
                "trials may do better, and rank differently."
            )


# --- command ------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command: prints one JSON object; 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m tune.analysis",
        description="Write sweep.html, its pictures, trials.csv and importances.csv. A sweep may "
        "still run. Exit code: 0 done, 2 bad input, 1 anything else.",
    )
    parser.add_argument(
        "run",
        nargs="+",
        metavar="RUN",
        help="a sweep's directory; others after it are compared with it",
    )
    parser.add_argument("--out", metavar="DIR", help="where to write; the first RUN by default")
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
