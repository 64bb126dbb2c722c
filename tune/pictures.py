"""The pictures of a sweep: the list of them, its course, objectives, and several sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from finsent.reports.pictures import Draw
from tune.parameter_pictures import (
    draw_contour,
    draw_importances,
    draw_parallel,
    draw_slices,
    leading_pair,
    varied,
)
from tune.picture_style import (
    BLUE,
    COLORS,
    GRAY,
    LINES,
    MARKS,
    View,
    legend_below,
    limit_y,
    shorten,
    time_unit,
    typical_range,
    write_title,
)
from tune.records import Objective, Trial
from tune.stats import (
    best_so_far,
    first_start,
    full_epochs,
    main_objective,
    ranked,
    savings,
    score,
    trials_with_values,
)


def pictures_of(view: View) -> dict[str, Draw[View]]:
    """Return the pictures that a sweep has data for, in the order of the page."""
    sweep = view.sweep
    count = len(ranked(sweep))
    has_data = {
        "comparison": bool(view.others),
        "best_so_far": count,
        "curves": any(sweep.metric in e.metrics for t in sweep.trials for e in t.epochs),
        "parallel": count > 1 and bool(varied(view)),
        "importances": len(view.importances.table),
        "slices": count > 1 and bool(varied(view)),
        "contour": count > 3 and len(leading_pair(view)) == 2,
        "pareto": bool(view.front),
        "savings": savings(sweep).epochs,
    }
    return {name: draw for name, draw in _PICTURES.items() if has_data[name]}


# --- course -------------------------------------------------------------------------------------


def _best_so_far(axes: Any, view: View) -> None:
    sweep, course = view.sweep, best_so_far(view.sweep)
    axes.figure.set_figheight(3.6)
    unit, length = time_unit(course["seconds"].max())
    begin = first_start(sweep)
    for status, color in COLORS.items():
        points = [
            ((trial.ended - begin) / length, value)
            for value, trial in ranked(sweep)
            if trial.status == status and trial.ended is not None
        ]
        if points:
            axes.scatter(
                *zip(*points, strict=True),
                s=14,
                color=color,
                marker=MARKS[status],
                linewidths=1,
                alpha=0.7,
                label=f"{status} trial",
            )
    axes.step(
        course["seconds"] / length,
        course["best"],
        where="post",
        color="black",
        linewidth=1.6,
        label="best so far",
    )
    limit_y(axes, [value for value, _ in ranked(sweep)], sweep.mode)
    axes.set_xlabel(f"{unit} since the first trial's start")
    axes.set_ylabel(shorten(sweep.metric))
    legend_below(axes)
    write_title(axes, "Best so far, and each trial at its end")


def _curves(axes: Any, view: View) -> None:
    sweep = view.sweep
    axes.figure.set_figheight(4.0)
    order = [trial.number for _, trial in ranked(sweep)]
    best = order[0] if order else None
    opacity = 0.7 if len(sweep.trials) <= 40 else 0.35
    values: list[float] = []
    for status in (*COLORS, "best"):
        lines = []
        for trial in sweep.trials:
            if ("best" if trial.number == best else trial.status) == status:
                points = [
                    (e.epoch, e.metrics[sweep.metric])
                    for e in trial.epochs
                    if sweep.metric in e.metrics
                ]
                lines += [points] if points else []
        if not lines:
            continue
        values += [value for line in lines for _, value in line]
        is_best = status == "best"
        color = "black" if is_best else COLORS[status]
        joined = np.array([point for line in lines for point in (*line, (np.nan, np.nan))])
        axes.plot(
            *joined.T,
            color=color,
            linewidth=2.2 if is_best else 0.9,
            alpha=1 if is_best else opacity,
            zorder=4 if is_best else 2,
        )
        axes.scatter(
            *np.array([line[-1] for line in lines]).T,
            color=color,
            s=24,
            zorder=5,
            marker="o" if is_best else MARKS[status],
            linewidths=1,
            alpha=0.9,
            label=f"best: trial {best}" if is_best else status,
        )
    limit_y(axes, values, sweep.mode)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(shorten(sweep.metric))
    legend_below(axes)
    write_title(axes, "Learning curves; a mark shows where a trial ended")


def _savings(axes: Any, view: View) -> None:
    """Draw the number of trials that trained each epoch, and that of full trials."""
    sweep = view.sweep
    axes.figure.set_figheight(2.8)
    judged = [t for t in sweep.trials if t.status in ("finished", "stopped")]
    lengths = [full_epochs(sweep, trial) for trial in judged]
    epochs = np.arange(1, max(lengths) + 1)
    full = [sum(length >= epoch for length in lengths) for epoch in epochs]
    trained = [sum(len(trial.epochs) >= epoch for trial in judged) for epoch in epochs]
    axes.bar(epochs, full, width=0.8, color="#e8ecf0", label="full trials")
    axes.bar(epochs, trained, width=0.8, color=BLUE, label="trained")
    for epoch, count in zip(epochs, trained, strict=True) if len(epochs) <= 30 else ():
        axes.text(epoch, count, f"{count}", ha="center", va="bottom", fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(0, max(full) * 1.15)
    axes.set_xlabel("epoch")
    axes.set_ylabel("trials")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    write_title(axes, "Trials that trained each epoch")


# --- several objectives, several sweeps ---------------------------------------------------------


def _pareto(axes: Any, view: View) -> None:
    """Draw the first objective against each other objective."""
    sweep = view.sweep
    first_objective, *others = sweep.objectives
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(max(6.4, 4.0 * len(others)), 4.2)
    panels = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
    trials = trials_with_values(sweep, sweep.objectives)
    for panel, other in zip(panels, others, strict=True):
        panel.spines[["top", "right"]].set_visible(False)
        behind = [t for t in trials if t.number not in view.front]
        front = sorted(
            (t for t in trials if t.number in view.front), key=lambda t: _value(t, other)
        )
        panel.scatter(
            [_value(t, other) for t in behind],
            [_value(t, first_objective) for t in behind],
            s=20,
            color=GRAY,
            alpha=0.6,
            label="other trials",
        )
        x, y = [_value(t, other) for t in front], [_value(t, first_objective) for t in front]
        if len(others) == 1:
            panel.step(
                x, y, where="post" if other.mode == "min" else "pre", color=BLUE, linewidth=1
            )
        panel.scatter(x, y, s=34, color=BLUE, zorder=3, label="Pareto front")
        for trial, at_x, at_y in list(zip(front, x, y, strict=True))[:: len(front) // 12 + 1]:
            panel.annotate(
                f"{trial.number}", (at_x, at_y), (5, 4), textcoords="offset points", fontsize=8
            )
        if min(x + [_value(t, other) for t in behind]) > 0 and _spread(trials, other) > 30:
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.xaxis.set_minor_formatter("")
        panel.set_xlabel(f"{shorten(other.name)} ({_better(other.mode)})")
    panels[0].set_ylabel(f"{shorten(first_objective.name)} ({_better(first_objective.mode)})")
    panels[0].legend(fontsize=8, frameon=False, loc="best")
    figure.suptitle("Each objective against the first objective", fontsize=11, x=0.01, ha="left")


def _value(trial: Trial, objective: Objective) -> float:
    return score(trial, objective) or 0.0


def _spread(trials: list[Trial], objective: Objective) -> float:
    values = [_value(trial, objective) for trial in trials]
    return max(values) / min(values)


def _better(mode: str) -> str:
    return "higher is better" if mode == "max" else "lower is better"


def _comparison(axes: Any, view: View) -> None:
    sweeps = [view.sweep, *view.others]
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(8.4, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    courses: list[pd.DataFrame] = [best_so_far(sweep) for sweep in sweeps]
    unit, length = time_unit(max(course["seconds"].max() for course in courses))
    for i, (sweep, course) in enumerate(zip(sweeps, courses, strict=True)):
        style = {
            "color": LINES[i % len(LINES)],
            "linewidth": 1.8,
            "where": "post",
            "linestyle": ("-", "--", "-.")[i // len(LINES) % 3],
            "label": shorten(sweep.name),
        }
        panels[0].step(course["epochs"], course["best"], **style)
        panels[1].step(course["seconds"] / length, course["best"], **style)
    limits = typical_range(
        [v for c in courses for v in c["best"].dropna().unique()], view.sweep.mode
    )
    if limits:
        panels[0].set_ylim(*limits)
    labels = ("epochs of all trials", f"{unit} since the start")
    for panel, label in zip(panels, labels, strict=True):
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel(label)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel(f"best {shorten(main_objective(view.sweep).name)} so far")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        fontsize=8,
        frameon=False,
        loc="outside lower center",
        ncols=3,
    )
    figure.suptitle("Best so far, sweep by sweep", fontsize=11, x=0.01, ha="left")


_PICTURES: dict[str, Draw[View]] = {
    "comparison": _comparison,
    "best_so_far": _best_so_far,
    "curves": _curves,
    "parallel": draw_parallel,
    "importances": draw_importances,
    "slices": draw_slices,
    "contour": draw_contour,
    "pareto": _pareto,
    "savings": _savings,
}
