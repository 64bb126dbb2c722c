"""Pictures of the monitor: evidence of drift over time, and shares before and now."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finsent.monitoring.monitor import DriftMonitor
from finsent.reports.pictures import Draw

History = Mapping[tuple[str, str | None], Sequence[tuple[int, float]]]

_MAX_NAMED = 6  # signals with a color of their own
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GREY = "#BBBBBB"


def drift_pictures() -> dict[str, Draw[DriftMonitor]]:
    """Return the pictures of a drift monitor, for `finsent.reports.pictures.draw_all`."""
    return {"evidence": draw_evidence, "shares": draw_shares}


def draw_evidence(axes: Any, monitor: DriftMonitor) -> None:
    """Draw the wealth of each signal's bets by rows; the strongest signals have colors."""
    histories = {key: points for key, points in monitor.histories().items() if points}
    strongest = sorted(histories, key=lambda key: -max(value for _, value in histories[key]))
    for number, key in reversed(list(enumerate(strongest))):
        rows, values = zip(*histories[key], strict=True)
        is_named = number < _MAX_NAMED
        axes.plot(
            rows,
            values,
            color=_COLORS[number] if is_named else _GREY,
            linewidth=1.4 if is_named else 0.8,
            label=_name(*key) if is_named else None,
        )
    threshold = math.log10(len(monitor.profile.signals) / monitor.alpha)
    axes.axhline(threshold, color="#444444", linewidth=1, linestyle="--")
    transform = axes.get_yaxis_transform()
    axes.text(0.99, threshold, "one signal alarms", ha="right", va="bottom", transform=transform)
    axes.set_xlabel("rows")
    axes.set_ylabel("evidence, log10")
    axes.set_title("Evidence of drift by signal", loc="left", fontsize=11)
    if histories:
        axes.legend(loc="upper left", frameon=False, fontsize=8)


def _name(signal: str, source: str | None) -> str:
    return signal if source is None else f"{signal}, {source}"


def draw_shares(axes: Any, monitor: DriftMonitor) -> None:
    """Draw the share of the cell that changed most, before and now, for each alarm."""
    alarms = monitor.alarms()[:_MAX_NAMED]
    axes.figure.set_figheight(1.4 + 0.45 * max(len(alarms), 2))
    positions = np.arange(len(alarms))
    before = [alarm.reference_share for alarm in alarms]
    now = [alarm.recent_share for alarm in alarms]
    axes.barh(positions - 0.18, before, 0.34, color=_GREY, label="reference")
    axes.barh(positions + 0.18, now, 0.34, color=_COLORS[1], label="recent rows")
    names = [f"{_name(alarm.signal, alarm.source)}: {alarm.cell}" for alarm in alarms]
    axes.set_yticks(positions, names, fontsize=9)
    axes.set_ylim(max(len(alarms), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    title = "Shares that changed most" if alarms else "No signal drifted"
    axes.set_title(title, loc="left", fontsize=11)
    if alarms:
        axes.legend(loc="lower right", frameon=False, fontsize=8)
