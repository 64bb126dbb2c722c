"""What pictures of sweeps are drawn of, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune.importance import Importances
from tune.records import Sweep
from tune.stats import Axis

BLUE, RED, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#999999"
PURPLE = "#CC79A7"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLORS = {
    "finished": BLUE,
    "stopped": GREY,
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
_LONGEST = 18  # characters of a name or category


@dataclass(frozen=True)
class View:
    """What pictures are drawn of."""

    sweep: Sweep
    axes: dict[str, Axis]  # by parameter
    importances: Importances
    front: list[int]  # numbers of the trials of the Pareto front; empty with one objective
    others: Sequence[Sweep]  # that it is compared with


def cut(name: str) -> str:
    """A name short enough for a picture."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def write_title(axes: Any, title: str) -> None:
    """A picture's heading, at its left."""
    axes.set_title(title, loc="left", fontsize=11)


def legend_below(axes: Any) -> None:
    """A legend outside the axes, where it hides no point."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        fontsize=8,
        frameon=False,
        loc="outside lower center",
        ncols=6,
    )


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a span is best told, and its length in seconds."""
    for name, length in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds > 2 * length:
            return name, length
    return "seconds", 1.0


def usual_range(values: Sequence[float], mode: str) -> tuple[float, float] | None:
    """Ends of an axis that shows what matters, where a few bad values would flatten all others."""
    if len(values) < 5:
        return None
    worst, usual, best = np.quantile(values, [0, 0.1, 1] if mode == "max" else [1, 0.9, 0])
    if abs(best - worst) <= 4 * abs(best - usual) or best == usual:
        return None
    room = (best - usual) * 1.6
    low, high = sorted((best - room, best + 0.08 * room))
    return float(low), float(high)


def limit(axes: Any, values: Sequence[float], mode: str) -> None:
    """Set the y axis by `usual_range`, and say how many values are outside."""
    limits = usual_range(values, mode)
    if limits:
        outside = sum(not limits[0] <= value <= limits[1] for value in values)
        axes.set_ylim(*limits)
        side = (0.01, 0.02, "bottom") if mode == "max" else (0.01, 0.98, "top")
        axes.text(
            *side[:2],
            f"{outside} worse values are off the picture",
            fontsize=8,
            va=side[2],
            color="#666666",
            transform=axes.transAxes,
        )
