"""The pictures of a sweep's parameters."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from tune.picture_style import (
    LINES,
    MAP,
    RED,
    View,
    legend_below,
    limit_y,
    shorten,
    typical_range,
    write_title,
)
from tune.stats import Axis, parameter_keys, ranked, short_names, smoothed

_MAX_TICKS = 12
_MIN_SURFACE_POINTS = 10
_DARK_SHARE = 0.9  # of the color map, for points and lines on white
_MAX_PARAMETERS = 16  # in one picture
_PANELS_PER_ROW = 3  # of slices


def varied(view: View) -> list[str]:
    """Return the parameters with more than one value, the most important first, at most 16."""
    keys = [
        key
        for key, axis in view.axes.items()
        if len(axis.categories) > 1 or (axis.high > axis.low and not axis.categories)
    ]
    order = {key: i for i, key in enumerate(view.importances.order(view.sweep.metric))}
    return sorted(keys, key=lambda key: order.get(key, len(order)))[:_MAX_PARAMETERS]


def leading_pair(view: View) -> list[str]:
    """Return the two most important parameters that four trials or more have together."""
    pairs = combinations(varied(view)[:4], 2)
    trials = [trial for _, trial in ranked(view.sweep)]
    for pair in pairs:
        if sum(all(key in t.params for key in pair) for t in trials) > 3:
            return list(pair)
    return []


def draw_parallel(axes: Any, view: View) -> None:
    """Draw one line per trial over one axis per parameter; a missing parameter is at the bottom."""
    from matplotlib.collections import LineCollection  # Matplotlib: 0.5 s

    sweep, keys = view.sweep, varied(view)
    scored = ranked(sweep)[::-1]  # the best drawn last
    values = np.array([value for value, _ in scored])
    limits = typical_range(values.tolist(), sweep.mode) or (values.min(), values.max())
    low, high = (max(limits[0], values.min()), min(limits[1], values.max()))
    axes.figure.set_size_inches(max(7.2, 1.15 * (len(keys) + 1)), 4.2)
    heights = np.clip((values - low) / (high - low) if high > low else values * 0 + 0.5, 0, 1)
    absent = -0.14
    lines = []
    for (_, trial), height in zip(scored, heights, strict=True):
        positions = [view.axes[key].position(trial.params.get(key)) for key in keys]
        ys = [*(absent if y is None else y for y in positions), height]
        lines.append(np.column_stack([np.arange(len(ys)), ys]))
    good = heights if sweep.mode == "max" else 1 - heights
    widths = np.full(len(lines), 0.9)
    widths[-1] = 2.6
    drawn = LineCollection(
        lines, cmap=_dark_color_map(), linewidths=widths, alpha=0.75 if len(lines) < 80 else 0.4
    )
    drawn.set_array(good)
    axes.add_collection(drawn)
    names = short_names(keys)
    for x in range(len(keys)):
        if any(line[x, 1] == absent for line in lines):
            axes.text(
                x, absent - 0.02, "not set", ha="center", va="top", fontsize=8, color="#444444"
            )
    for x, key in enumerate(keys):
        _draw_axis(axes, x, _ticks(view.axes[key]))
    _draw_axis(
        axes, len(keys), [(t, f"{low + t * (high - low):.3g}") for t in (0, 0.25, 0.5, 0.75, 1)]
    )
    headings = [*(shorten(names[key]) for key in keys), shorten(sweep.metric)]
    for x, heading in enumerate(headings):  # in two rows, so that long names do not meet
        axes.text(x, 1.05 + 0.07 * (x % 2), heading, ha="center", fontsize=8.5, fontweight="bold")
    axes.set_xlim(-0.45, len(keys) + 0.45)
    axes.set_ylim(-0.22, 1.2)
    axes.set_axis_off()
    write_title(axes, "All trials: the brighter the line, the better. The best trial is thick")


def _draw_axis(axes: Any, x: int, ticks: list[tuple[float, str]]) -> None:
    from matplotlib.patheffects import withStroke  # Matplotlib: 0.5 s

    axes.plot([x, x], [0, 1], color="#333333", linewidth=1, zorder=3)
    for y, label in ticks:
        axes.plot([x - 0.03, x], [y, y], color="#333333", linewidth=1, zorder=3)
        axes.text(
            x - 0.05,
            y,
            label,
            ha="right",
            va="center",
            fontsize=7.5,
            zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    """Return the positions and labels of an axis's ticks, few enough to be read."""
    if axis.categories:
        categories = axis.categories[:: -(-len(axis.categories) // _MAX_TICKS)]
        last = max(len(axis.categories) - 1, 1)
        return [(axis.categories.index(name) / last, shorten(name)) for name in categories]
    if axis.log:
        first, end = np.log10(axis.low), np.log10(axis.high)
        powers = [10.0**n for n in range(int(np.ceil(first)), int(np.floor(end)) + 1)]
        inner = [n for n in powers if 0.08 < (axis.position(n) or 0.0) < 0.92]
        numbers = [axis.low, *inner[:: len(inner) // 5 + 1], axis.high]
    else:
        numbers = np.linspace(axis.low, axis.high, 5).tolist()
    return [(axis.position(n) or 0.0, f"{n:.3g}") for n in numbers]


def draw_importances(axes: Any, view: View) -> None:
    """Draw a bar per parameter and objective, with a mark at the importance by chance."""
    table = view.importances.table
    groups = list(dict.fromkeys(table["objective"]))
    keys = list(dict.fromkeys(table["parameter"]))[:_MAX_PARAMETERS]
    names = short_names(keys)
    axes.figure.set_figheight(1.3 + 0.32 * len(keys) * max(1, 0.6 * len(groups)))
    height = 0.75 / len(groups)
    for i, group in enumerate(groups):
        rows = table[table["objective"] == group].set_index("parameter").reindex(keys)
        ys = np.arange(len(keys)) + (i - (len(groups) - 1) / 2) * height
        chance = rows["chance"].clip(upper=1.0)
        axes.barh(ys, rows["importance"], height * 0.9, color=LINES[i % len(LINES)], label=group)
        axes.vlines(
            chance,
            ys - height * 0.45,
            ys + height * 0.45,
            color="#333333",
            linewidth=2,
            label="chance" if i == len(groups) - 1 else None,
        )
        for y, value, chance_value in zip(ys, rows["importance"], chance, strict=True):
            if np.isfinite(value):
                label = f"{value:.0%}" + (" (chance)" if value <= chance_value else "")
                axes.text(max(value, chance_value) + 0.01, y, label, va="center", fontsize=8)
    axes.set_yticks(range(len(keys)), [shorten(names[key]) for key in keys], fontsize=9)
    axes.set_xlim(0, min(1.0, float(table[["importance", "chance"]].to_numpy().max())) * 1.18)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.invert_yaxis()
    axes.set_xlabel("share of the importance")
    legend_below(axes)
    write_title(axes, "Which parameters decide whether a trial is good")


def _dark_color_map() -> Any:
    from matplotlib import colormaps  # Matplotlib: 0.5 s
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps[MAP](np.linspace(0, _DARK_SHARE, 256)))


def draw_slices(axes: Any, view: View) -> None:
    """Draw a panel per parameter: the metric over its values, and the number of other trials."""
    from matplotlib.ticker import MaxNLocator  # Matplotlib: 0.5 s

    sweep, keys = view.sweep, varied(view)
    figure, rows = axes.figure, -(-len(keys) // _PANELS_PER_ROW)
    axes.remove()
    figure.set_size_inches(8.4, 0.5 + 2.3 * rows)
    panels = figure.subplots(rows, _PANELS_PER_ROW, squeeze=False, sharey=True)
    names, scored = short_names(keys), ranked(sweep)
    random = np.random.default_rng(0)
    image = None
    for panel, key in zip(panels.flat, keys, strict=False):
        axis = view.axes[key]
        with_key = [(value, t) for value, t in scored if key in t.params]
        panel.spines[["top", "right"]].set_visible(False)
        for hollow in (True, False):
            points = [(v, t) for v, t in with_key if (t.status != "finished") == hollow]
            x = _set_up_axis(panel, axis, [t.params[key] for _, t in points], random)
            colors = [t.number for _, t in points]
            image = panel.scatter(
                x,
                [v for v, _ in points],
                c=colors,
                s=22,
                cmap=_dark_color_map(),
                linewidths=1,
                alpha=0.8,
                marker="x" if hollow else "o",
                vmin=0,
                vmax=max(t.number for _, t in scored) or 1,
            )
        absent = len(scored) - len(with_key)
        panel.set_xlabel(
            shorten(names[key]) + (f" (not set in {absent})" if absent else ""), fontsize=9
        )
        panel.tick_params(labelsize=8)
        limit_y(panel, [value for value, _ in scored], sweep.mode)
    for panel in panels.flat[len(keys) :]:
        panel.set_axis_off()
    for row in panels:
        row[0].set_ylabel(shorten(sweep.metric), fontsize=9)
    figure.colorbar(
        image,
        ax=panels,
        label="trial number",
        ticks=MaxNLocator(integer=True),
        shrink=0.8 if rows > 1 else 1,
    )
    figure.suptitle(
        "Each parameter alone: dots are finished trials, crosses are others",
        fontsize=11,
        x=0.01,
        ha="left",
    )


def _set_up_axis(panel: Any, axis: Axis, values: list[Any], random: Any, side: str = "x") -> Any:
    """Set up one axis of a panel for a parameter; return the coordinates of the values."""
    scale, ticks = getattr(panel, f"set_{side}scale"), getattr(panel, f"set_{side}ticks")
    limits = getattr(panel, f"set_{side}lim")
    if not axis.categories:
        if axis.log:
            scale("log")
            side_axis = getattr(panel, f"{side}axis")
            side_axis.set_major_formatter(lambda value, _: f"{value:g}")
            side_axis.set_minor_formatter("")
            ratio = (axis.high / axis.low) ** 0.05
            limits(axis.low / ratio, axis.high * ratio)
        else:
            margin = 0.05 * (axis.high - axis.low)
            limits(axis.low - margin, axis.high + margin)
        return [float(value) for value in values]
    last = len(axis.categories) - 1
    marks = [(position * last, label) for position, label in _ticks(axis)]
    long = side == "x" and sum(len(label) for _, label in marks) > 22
    how = {"rotation": 30 if long else 0, "ha": "right" if long or side == "y" else "center"}
    ticks(*zip(*marks, strict=True), **how, **({} if side == "x" else {"va": "center"}))
    limits(-0.5, last + 0.5)
    positions = np.array([(axis.position(value) or 0.0) * last for value in values])
    return positions + random.uniform(-0.15, 0.15, len(positions))


def draw_contour(axes: Any, view: View) -> None:
    """Draw the two most important parameters, over a smooth surface where both are numbers."""
    sweep, pair = view.sweep, leading_pair(view)
    axes.figure.set_size_inches(6.4, 4.6)
    across, down = (view.axes[key] for key in pair)
    scored = [(v, t) for v, t in ranked(sweep)[::-1] if all(key in t.params for key in pair)]
    values = np.array([value for value, _ in scored])
    limits = typical_range(values.tolist(), sweep.mode) or (values.min(), values.max())
    values = values.clip(*limits)
    low, high = values.min(), values.max()
    colors = MAP if sweep.mode == "max" else f"{MAP}_r"
    random = np.random.default_rng(0)
    x = _set_up_axis(axes, across, [t.params[pair[0]] for _, t in scored], random)
    y = _set_up_axis(axes, down, [t.params[pair[1]] for _, t in scored], random, "y")
    if len(scored) >= _MIN_SURFACE_POINTS and not across.categories and not down.categories:
        xs, ys = (
            np.array([axis.position(t.params[axis.key]) for _, t in scored])
            for axis in (across, down)
        )
        surface = smoothed(xs, ys, values)
        grid = [
            np.geomspace(a.low, a.high, len(surface))
            if a.log
            else np.linspace(a.low, a.high, len(surface))
            for a in (across, down)
        ]
        axes.contourf(*grid, surface, levels=14, cmap=colors, alpha=0.75, vmin=low, vmax=high)
    dots = axes.scatter(
        x,
        y,
        c=values,
        cmap=colors,
        vmin=low,
        vmax=high,
        s=26,
        edgecolors="white",
        linewidths=0.7,
        zorder=3,
    )
    axes.scatter(x[-1:], y[-1:], s=150, facecolors="none", edgecolors=RED, linewidths=2, zorder=4)
    names = short_names(parameter_keys(sweep))
    axes.set_xlabel(shorten(names[pair[0]]))
    axes.set_ylabel(shorten(names[pair[1]]))
    axes.figure.colorbar(dots, ax=axes, label=shorten(sweep.metric))
    write_title(axes, "The two most important parameters together. The best trial is circled")
