"""Pictures of sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from finsent.reports.pictures import Draw
from tune.importance import Importances
from tune.records import Sweep, Trial
from tune.stats import (
    Axis,
    best_so_far,
    ended,
    full_length,
    main_objective,
    parameters,
    ranked,
    savings,
    score,
    short_names,
    smoothed,
)

_BLUE, _RED, _GREEN, _ORANGE, _GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#999999"
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_COLOURS = {
    "finished": _BLUE, "stopped": _GREY, "failed": _RED, "interrupted": _ORANGE, "running": _GREEN,
}  # fmt: skip
_MARKS = {"finished": "o", "stopped": "x", "failed": "X", "interrupted": "s", "running": ">"}
_MAP = "viridis"
_MOST_PARAMETERS = 16  # in one picture
_LONGEST = 18  # characters of a name or category
_PANELS = 3  # of slices, side by side


@dataclass(frozen=True)
class View:
    """What pictures are drawn of."""

    sweep: Sweep
    axes: dict[str, Axis]  # by parameter
    importances: Importances
    front: list[int]  # numbers of the trials of the Pareto front; empty with one objective
    others: Sequence[Sweep]  # that it is compared with


def pictures_of(view: View) -> dict[str, Draw[View]]:
    """What can be drawn of a sweep, in the order of the page."""
    sweep = view.sweep
    have = len(ranked(sweep))
    there = {
        "comparison": bool(view.others),
        "best_so_far": have,
        "curves": any(sweep.metric in e.metrics for t in sweep.trials for e in t.epochs),
        "parallel": have > 1 and bool(_varied(view)),
        "importances": len(view.importances.table),
        "slices": have > 1 and bool(_varied(view)),
        "contour": have > 3 and len(_two(view)) == 2,
        "pareto": bool(view.front),
        "savings": savings(sweep).epochs,
    }
    return {name: draw for name, draw in _PICTURES.items() if there[name]}


def _varied(view: View) -> list[str]:
    """Parameters with more than one place, the most important first, at most 16."""
    keys = [k for k, a in view.axes.items() if len(a.categories) > 1 or a.high > a.low and not
            a.categories]  # fmt: skip
    order = {key: i for i, key in enumerate(view.importances.order(view.sweep.metric))}
    return sorted(keys, key=lambda key: order.get(key, len(order)))[:_MOST_PARAMETERS]


def _two(view: View) -> list[str]:
    """The two most important parameters that some trials have together."""
    pairs = combinations(_varied(view)[:4], 2)
    trials = [trial for _, trial in ranked(view.sweep)]
    for pair in pairs:
        if sum(all(key in t.params for key in pair) for t in trials) > 3:
            return list(pair)
    return []


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _title(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)


def _time_unit(seconds: float) -> tuple[str, float]:
    for name, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds > 2 * length:
            return name, length
    return "seconds", 1.0


def _limits(values: Sequence[float], mode: str) -> tuple[float, float] | None:
    """Ends of an axis that shows what matters, where a few bad values would flatten all others."""
    if len(values) < 5:
        return None
    worst, usual, best = np.quantile(values, [0, 0.1, 1] if mode == "max" else [1, 0.9, 0])
    if abs(best - worst) <= 4 * abs(best - usual) or best == usual:
        return None
    room = (best - usual) * 1.6
    low, high = sorted((best - room, best + 0.08 * room))
    return float(low), float(high)


def _limit(axes: Any, values: Sequence[float], mode: str) -> None:
    """Set the y axis by `_limits`, and say how many values are outside."""
    limits = _limits(values, mode)
    if limits:
        outside = sum(not limits[0] <= value <= limits[1] for value in values)
        axes.set_ylim(*limits)
        side = (0.01, 0.02, "bottom") if mode == "max" else (0.01, 0.98, "top")
        axes.text(*side[:2], f"{outside} worse values are off the picture", fontsize=8, va=side[2],
                  color="#666666", transform=axes.transAxes)  # fmt: skip


# --- course -------------------------------------------------------------------------------------


def _best_so_far(axes: Any, view: View) -> None:
    sweep, course = view.sweep, best_so_far(view.sweep)
    axes.figure.set_figheight(3.6)
    unit, length = _time_unit(course["seconds"].max())
    begin = min(t.started for t in sweep.trials if t.started is not None)
    for status, colour in _COLOURS.items():
        points = [
            ((trial.ended - begin) / length, value)
            for value, trial in ranked(sweep)
            if trial.status == status and trial.ended is not None
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), s=14, color=colour, marker=_MARKS[status],
                         linewidths=1, alpha=0.7, label=f"{status} trial")  # fmt: skip
    axes.step(course["seconds"] / length, course["best"], where="post", color="black",
              linewidth=1.6, label="best so far")  # fmt: skip
    _limit(axes, [value for value, _ in ranked(sweep)], sweep.mode)
    axes.set_xlabel(f"{unit} since the first trial's start")
    axes.set_ylabel(_cut(sweep.metric))
    axes.legend(fontsize=8, frameon=False, loc="best")
    _title(axes, "Best so far, and each trial at its end")


def _curves(axes: Any, view: View) -> None:
    sweep = view.sweep
    axes.figure.set_figheight(4.0)
    order = [trial.number for _, trial in ranked(sweep)]
    best = order[0] if order else None
    faint = 0.75 if len(sweep.trials) <= 40 else 0.3
    seen: list[float] = []
    named: set[str] = set()
    for trial in sorted(sweep.trials, key=lambda t: t.number == best):
        points = [(e.epoch, e.metrics[sweep.metric]) for e in trial.epochs
                  if sweep.metric in e.metrics]  # fmt: skip
        if not points:
            continue
        x, y = zip(*points, strict=True)
        seen += y
        champion = trial.number == best
        colour = "black" if champion else _COLOURS[trial.status]
        axes.plot(x, y, color=colour, linewidth=2.2 if champion else 1,
                  alpha=1 if champion else faint, zorder=4 if champion else 2,
                  label=f"best: trial {trial.number} ({trial.status})" if champion else None)  # fmt: skip
        label = None if trial.status in named else trial.status
        named.add(trial.status)
        axes.scatter(x[-1:], y[-1:], marker=_MARKS[trial.status], color=colour, s=24, zorder=3,
                     alpha=min(1, faint + 0.2), label=label, linewidths=1)  # fmt: skip
    _limit(axes, seen, sweep.mode)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(_cut(sweep.metric))
    axes.legend(fontsize=8, frameon=False, loc="best")
    _title(axes, "Learning curves; the mark is where a trial ended")


def _savings(axes: Any, view: View) -> None:
    """Trials that ran each epoch, of those that would have."""
    sweep = view.sweep
    axes.figure.set_figheight(2.8)
    judged = [t for t in sweep.trials if t.status in ("finished", "stopped")]
    full = [full_length(sweep, trial) for trial in judged]
    epochs = np.arange(1, max(full) + 1)
    would = [sum(length >= epoch for length in full) for epoch in epochs]
    did = [sum(len(trial.epochs) >= epoch for trial in judged) for epoch in epochs]
    axes.bar(epochs, would, width=0.8, color="#e8ecf0", label="all in full")
    axes.bar(epochs, did, width=0.8, color=_BLUE, label="ran")
    for epoch, count in zip(epochs, did, strict=True) if len(epochs) <= 30 else ():
        axes.text(epoch, count, f"{count}", ha="center", va="bottom", fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(0, max(would) * 1.15)
    axes.set_xlabel("epoch")
    axes.set_ylabel("trials")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    _title(axes, "Trials that ran each epoch")


# --- parameters ---------------------------------------------------------------------------------


def _parallel(axes: Any, view: View) -> None:
    """One line a trial over one axis a parameter; a missing parameter is at the rung below."""
    from matplotlib.collections import LineCollection

    sweep, keys = view.sweep, _varied(view)
    found = ranked(sweep)[::-1]  # the best drawn last
    values = np.array([value for value, _ in found])
    limits = _limits(values.tolist(), sweep.mode) or (values.min(), values.max())
    low, high = (max(limits[0], values.min()), min(limits[1], values.max()))
    axes.figure.set_size_inches(max(7.2, 1.15 * (len(keys) + 1)), 4.2)
    heights = np.clip((values - low) / (high - low) if high > low else values * 0 + 0.5, 0, 1)
    absent = -0.14
    lines = []
    for (_, trial), height in zip(found, heights, strict=True):
        places = [view.axes[key].place(trial.params.get(key)) for key in keys]
        ys = [*(absent if place is None else place for place in places), height]
        lines.append(np.column_stack([np.arange(len(ys)), ys]))
    good = heights if sweep.mode == "max" else 1 - heights
    widths = np.full(len(lines), 0.9)
    widths[-1] = 2.6
    drawn = LineCollection(lines, cmap=_MAP, linewidths=widths, alpha=0.75 if len(lines) < 80 else 0.4)
    drawn.set_array(good)
    axes.add_collection(drawn)
    if any((line[:, 1] == absent).any() for line in lines):
        axes.text(-0.08, absent, "not set", ha="right", va="center", fontsize=8, color="#666666")
    names = short_names(keys)
    for x, key in enumerate(keys):
        _rule(axes, x, _ticks(view.axes[key]))
    _rule(axes, len(keys), [(t, f"{low + t * (high - low):.3g}") for t in (0, 0.25, 0.5, 0.75, 1)])
    headings = [*(_cut(names[key]) for key in keys), _cut(sweep.metric)]
    for x, heading in enumerate(headings):  # in two rows, so that long names do not meet
        axes.text(x, 1.05 + 0.07 * (x % 2), heading, ha="center", fontsize=8.5, fontweight="bold")
    axes.set_xlim(-0.45, len(keys) + 0.45)
    axes.set_ylim(-0.2, 1.2)
    axes.set_axis_off()
    _title(axes, "All trials: the brighter the line, the better; the best one is thick")


def _rule(axes: Any, x: int, ticks: list[tuple[float, str]]) -> None:
    from matplotlib.patheffects import withStroke

    axes.plot([x, x], [0, 1], color="#333333", linewidth=1, zorder=3)
    for place, words in ticks:
        axes.plot([x - 0.03, x], [place, place], color="#333333", linewidth=1, zorder=3)
        axes.text(x - 0.05, place, words, ha="right", va="center", fontsize=7.5, zorder=4,
                  path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    """Places and words along an axis, few enough to be read."""
    if axis.categories:
        shown = axis.categories if len(axis.categories) <= 12 else axis.categories[:: len(axis.categories) // 12 + 1]  # noqa: E501  # fmt: skip
        last = max(len(axis.categories) - 1, 1)
        return [(axis.categories.index(name) / last, _cut(name)) for name in shown]
    if axis.log:
        first, end = np.log10(axis.low), np.log10(axis.high)
        powers = [10.0**n for n in range(int(np.ceil(first)), int(np.floor(end)) + 1)]
        inner = [n for n in powers if 0.08 < ((axis.place(n) or 0.0)) < 0.92]
        numbers = [axis.low, *inner[:: len(inner) // 5 + 1], axis.high]
    else:
        numbers = np.linspace(axis.low, axis.high, 5).tolist()
    return [(axis.place(n) or 0.0, f"{n:.3g}") for n in numbers]


def _importances(axes: Any, view: View) -> None:
    table = view.importances.table
    groups = list(dict.fromkeys(table["objective"]))
    keys = list(dict.fromkeys(table["parameter"]))[:_MOST_PARAMETERS]
    names = short_names(keys)
    axes.figure.set_figheight(1.3 + 0.32 * len(keys) * max(1, 0.6 * len(groups)))
    height = 0.75 / len(groups)
    for i, group in enumerate(groups):
        rows = table[table["objective"] == group].set_index("parameter").reindex(keys)
        places = np.arange(len(keys)) + (i - (len(groups) - 1) / 2) * height
        axes.barh(places, rows["importance"], height * 0.9, color=_LINES[i % len(_LINES)], label=group)
        axes.hlines(places, rows["low"], rows["high"], color="#333333", linewidth=1)
        for place, (value, end) in zip(places, rows[["importance", "high"]].to_numpy(), strict=True):
            if np.isfinite(value):
                axes.text(max(value, end) + 0.01, place, f"{value:.0%}", va="center", fontsize=8)
    axes.set_yticks(range(len(keys)), [_cut(names[key]) for key in keys], fontsize=9)
    axes.set_xlim(0, min(1.12, float(np.nanmax(table[["importance", "high"]].to_numpy())) * 1.15))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.invert_yaxis()
    if len(groups) > 1:
        axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.set_xlabel("share of the importance; thin lines: 10 to 90 % of bootstrap resamples")
    _title(axes, "Which parameters decide whether a trial is good")


def _slices(axes: Any, view: View) -> None:
    sweep, keys = view.sweep, _varied(view)
    figure, rows = axes.figure, -(-len(keys) // _PANELS)
    axes.remove()
    figure.set_size_inches(8.4, 0.5 + 2.3 * rows)
    panels = figure.subplots(rows, _PANELS, squeeze=False, sharey=True)
    names, found = short_names(keys), ranked(sweep)
    random = np.random.default_rng(0)
    image = None
    for panel, key in zip(panels.flat, keys, strict=False):
        axis = view.axes[key]
        having = [(value, t) for value, t in found if key in t.params]
        panel.spines[["top", "right"]].set_visible(False)
        for hollow in (True, False):
            here = [(v, t) for v, t in having if (t.status != "finished") == hollow]
            x = _along(panel, axis, [t.params[key] for _, t in here], random)
            colours = [t.number for _, t in here]
            image = panel.scatter(
                x, [v for v, _ in here], c=colours, s=22, cmap=_MAP, linewidths=1, alpha=0.8,
                marker="x" if hollow else "o", vmin=0, vmax=max(t.number for _, t in found) or 1,
            )  # fmt: skip
        absent = len(found) - len(having)
        panel.set_xlabel(_cut(names[key]) + (f" (not set in {absent})" if absent else ""), fontsize=9)
        panel.tick_params(labelsize=8)
        _limit(panel, [value for value, _ in found], sweep.mode)
    for panel in panels.flat[len(keys) :]:
        panel.set_axis_off()
    for row in panels:
        row[0].set_ylabel(_cut(sweep.metric), fontsize=9)
    figure.colorbar(image, ax=panels, label="trial number", shrink=0.8 if rows > 1 else 1)
    figure.suptitle("Each parameter alone: dots finished, crosses did not", fontsize=11, x=0.01, ha="left")


def _along(panel: Any, axis: Axis, values: list[Any], random: Any, side: str = "x") -> Any:
    """Set one side of a panel up for a parameter; returns where its values lie there."""
    scale, ticks = getattr(panel, f"set_{side}scale"), getattr(panel, f"set_{side}ticks")
    limits = getattr(panel, f"set_{side}lim")
    if not axis.categories:
        if axis.log:
            scale("log")
            ratio = (axis.high / axis.low) ** 0.05
            limits(axis.low / ratio, axis.high * ratio)
        else:
            room = 0.05 * (axis.high - axis.low)
            limits(axis.low - room, axis.high + room)
        return [float(value) for value in values]
    last = len(axis.categories) - 1
    marks = [(place * last, words) for place, words in _ticks(axis)]
    long = side == "x" and sum(len(words) for _, words in marks) > 22
    ticks(*zip(*marks, strict=True), rotation=30 if long else 0, ha="right" if long else "center",
          **({} if side == "x" else {"va": "center"}))  # fmt: skip
    limits(-0.5, last + 0.5)
    places = np.array([(axis.place(value) or 0.0) * last for value in values])
    return places + random.uniform(-0.15, 0.15, len(places))


def _contour(axes: Any, view: View) -> None:
    """Points of the two most important parameters, over a smooth surface where both are numbers."""
    sweep, pair = view.sweep, _two(view)
    axes.figure.set_size_inches(6.4, 4.6)
    across, down = (view.axes[key] for key in pair)
    found = [(v, t) for v, t in ranked(sweep)[::-1] if all(key in t.params for key in pair)]
    values = np.array([value for value, _ in found])
    limits = _limits(values.tolist(), sweep.mode) or (values.min(), values.max())
    values = values.clip(*limits)
    low, high = values.min(), values.max()
    colours = _MAP if sweep.mode == "max" else f"{_MAP}_r"
    random = np.random.default_rng(0)
    x = _along(axes, across, [t.params[pair[0]] for _, t in found], random)
    y = _along(axes, down, [t.params[pair[1]] for _, t in found], random, "y")
    if not across.categories and not down.categories:
        places = [[axis.place(t.params[axis.key]) for _, t in found] for axis in (across, down)]
        surface = smoothed(np.array(places[0]), np.array(places[1]), values)
        grid = [np.geomspace(a.low, a.high, len(surface)) if a.log
                else np.linspace(a.low, a.high, len(surface)) for a in (across, down)]  # fmt: skip
        axes.contourf(*grid, surface, levels=14, cmap=colours, alpha=0.75, vmin=low, vmax=high)
    dots = axes.scatter(x, y, c=values, cmap=colours, vmin=low, vmax=high, s=26, edgecolors="white",
                        linewidths=0.7, zorder=3)  # fmt: skip
    axes.scatter(x[-1:], y[-1:], s=150, facecolors="none", edgecolors=_RED, linewidths=2, zorder=4)
    names = short_names(parameters(sweep))
    axes.set_xlabel(_cut(names[pair[0]]))
    axes.set_ylabel(_cut(names[pair[1]]))
    axes.figure.colorbar(dots, ax=axes, label=_cut(sweep.metric))
    _title(axes, "The two most important parameters together; circled: the best")


# --- several objectives, several sweeps ---------------------------------------------------------


def _pareto(axes: Any, view: View) -> None:
    """The first objective against each other one."""
    sweep = view.sweep
    first, *others = sweep.objectives
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(max(6.4, 4.0 * len(others)), 4.2)
    panels = figure.subplots(1, len(others), squeeze=False, sharey=True)[0]
    trials = ended(sweep, sweep.objectives)
    for panel, other in zip(panels, others, strict=True):
        panel.spines[["top", "right"]].set_visible(False)
        behind = [t for t in trials if t.number not in view.front]
        front = sorted((t for t in trials if t.number in view.front), key=lambda t: _or(t, other))
        panel.scatter([_or(t, other) for t in behind], [_or(t, first) for t in behind], s=20,
                      color=_GREY, alpha=0.6, label="other trials")  # fmt: skip
        x, y = [_or(t, other) for t in front], [_or(t, first) for t in front]
        if len(others) == 1:
            panel.step(x, y, where="post" if other.mode == "min" else "pre", color=_BLUE, linewidth=1)
        panel.scatter(x, y, s=34, color=_BLUE, zorder=3, label="Pareto front")
        for trial, at_x, at_y in list(zip(front, x, y, strict=True))[:: len(front) // 12 + 1]:
            panel.annotate(f"{trial.number}", (at_x, at_y), (5, 4), textcoords="offset points",
                           fontsize=8)  # fmt: skip
        if min(x + [_or(t, other) for t in behind]) > 0 and _spread(trials, other) > 30:
            panel.set_xscale("log")
        panel.set_xlabel(f"{_cut(other.name)} ({_better(other.mode)})")
    panels[0].set_ylabel(f"{_cut(first.name)} ({_better(first.mode)})")
    panels[0].legend(fontsize=8, frameon=False, loc="best")
    figure.suptitle("What each objective costs the others", fontsize=11, x=0.01, ha="left")


def _or(trial: Trial, objective: Any) -> float:
    return score(trial, objective) or 0.0


def _spread(trials: list[Trial], objective: Any) -> float:
    values = [_or(trial, objective) for trial in trials]
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
    unit, length = _time_unit(max(course["seconds"].max() for course in courses))
    for i, (sweep, course) in enumerate(zip(sweeps, courses, strict=True)):
        style = {"color": _LINES[i % len(_LINES)], "linewidth": 1.8, "where": "post",
                 "linestyle": ("-", "--", "-.")[i // len(_LINES) % 3], "label": _cut(sweep.name)}  # fmt: skip
        panels[0].step(course["epochs"], course["best"], **style)
        panels[1].step(course["seconds"] / length, course["best"], **style)
    values = [v for course in courses for v in course["best"] if np.isfinite(v)]
    _limit(panels[0], values, view.sweep.mode)
    for panel, words in zip(panels, ("epochs spent by all trials", f"{unit} since the start"),
                            strict=True):  # fmt: skip
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel(words)
        panel.grid(alpha=0.25)
    panels[0].set_ylabel(f"best {_cut(main_objective(view.sweep).name)} so far")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, frameon=False,
                  loc="outside lower center", ncols=3)  # fmt: skip
    figure.suptitle("Best so far, sweep by sweep", fontsize=11, x=0.01, ha="left")


_PICTURES: dict[str, Draw[View]] = {
    "comparison": _comparison,
    "best_so_far": _best_so_far,
    "curves": _curves,
    "parallel": _parallel,
    "importances": _importances,
    "slices": _slices,
    "contour": _contour,
    "pareto": _pareto,
    "savings": _savings,
}
