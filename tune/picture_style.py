"""The common style of a sweep's pictures: colors, titles, legends and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune.importance import Importances
from tune.records import Sweep
from tune.stats import Axis

BLUE, RED, GREEN, ORANGE, GRAY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#999999"
PURPLE = "#CC79A7"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLORS = {
    "finished": BLUE,
    "stopped": GRAY,
    "diverged": PURPLE,
    "failed": RED,
    "interrupted": ORANGE,
    "running": GREEN,
}
MARKS = {
    "finished": "o",
    "stopped": "x",
    "diverged": "^",
    "failed": "X",
    "interrupted": "s",
    "running": ">",
}
MAP = "viridis"
_MAX_NAME = 18  # characters of a name or category


@dataclass(frozen=True)
class View:
    """The data of a sweep's pictures."""

    sweep: Sweep
    axes: dict[str, Axis]  # by parameter
    importances: Importances
    front: list[int]  # numbers of the trials of the Pareto front; empty with one objective
    others: Sequence[Sweep]  # sweeps to compare with


def shorten(name: str) -> str:
    """Return a name that is short enough for a picture."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def write_title(axes: Any, title: str) -> None:
    """Write a picture's title at its left."""
    axes.set_title(title, loc="left", fontsize=11)


def legend_below(axes: Any) -> None:
    """Draw a legend outside the axes, where it covers no point."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        fontsize=8,
        frameon=False,
        loc="outside lower center",
        ncols=6,
    )


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit for a duration, and the unit's length in seconds."""
    for name, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds > 2 * length:
            return name, length
    return "seconds", 1.0


def typical_range(values: Sequence[float], mode: str) -> tuple[float, float] | None:
    """Return limits of an axis without the few bad values that would flatten all others."""
    if len(values) < 5:
        return None
    worst, typical, best = np.quantile(values, [0, 0.1, 1] if mode == "max" else [1, 0.9, 0])
    if abs(best - worst) <= 4 * abs(best - typical) or best == typical:
        return None
    height = (best - typical) * 1.6
    low, high = sorted((best - height, best + 0.08 * height))
    return float(low), float(high)


def limit_y(axes: Any, values: Sequence[float], mode: str) -> None:
    """Set the y axis by `typical_range`, and write how many values are outside."""
    limits = typical_range(values, mode)
    if limits:
        outside = sum(not limits[0] <= value <= limits[1] for value in values)
        axes.set_ylim(*limits)
        y, alignment = (0.02, "bottom") if mode == "max" else (0.98, "top")
        axes.text(
            0.01,
            y,
            f"{outside} worse values are outside the picture",
            fontsize=8,
            va=alignment,
            color="#666666",
            transform=axes.transAxes,
        )
