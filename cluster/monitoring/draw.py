"""Draw the dashboards from a Prometheus: `python -m cluster.monitoring.draw URL DIRECTORY`.

The pictures of docs/monitoring.md are made by this program, as Grafana cannot be installed by pip.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cluster.monitoring.dashboards import DASHBOARDS
from cluster.monitoring.model import Dashboard, Panel, Unit
from cluster.monitoring.rules import for_all_runs

Floats = npt.NDArray[np.float64]

_COLUMNS = 2
_PANEL_INCHES = (3.9, 2.5)
_DPI = 100
_TIMEOUT_SECONDS = 30
_POINTS = 200
_DEFAULT_MINUTES = 60
_TOP = 1.05  # of the axis over the largest value, which would be hidden by the frame
_MAX_LEGEND = 6  # series; more would cover the picture
_FORMATS: Mapping[Unit, Callable[[float], str]] = {
    "percentunit": lambda value: f"{value * 100:g} %",
    "s": lambda value: f"{value * 1000:g} ms" if value < 1 else f"{value:g} s",
    "bytes": lambda value: f"{value / 1e9:g} GB",
    "reqps": lambda value: f"{value:g}/s",
    "ops": lambda value: f"{value:g}/s",
}


@dataclass(frozen=True)
class Series:
    """A time series: minutes before the end, and values."""

    legend: str
    minutes: Floats
    values: Floats


class PrometheusClient:
    """Queries of Prometheus' HTTP API.

    Args:
        address: of Prometheus, e.g. http://127.0.0.1:9090.
    """

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=f"{address}/api/v1", timeout=_TIMEOUT_SECONDS)

    def now(self, expression: str) -> list[dict[str, object]]:
        """Return the result of an expression: labels and value of each series."""
        return self._result("query", query=expression)

    def series(self, expression: str, legend: str, begin: float, end: float) -> list[Series]:
        """Return the series of an expression between two Unix times.

        Args:
            legend: in Grafana's notation.
        """
        step = max((end - begin) / _POINTS, 1.0)
        result = self._result("query_range", query=expression, start=begin, end=end, step=step)
        return [_series(entry, legend, end) for entry in result]

    def _result(self, path: str, **parameters: str | float) -> list[dict[str, object]]:
        answer = self._client.get(f"/{path}", params=parameters).raise_for_status().json()
        result = answer["data"]["result"]
        assert isinstance(result, list)
        return result


def _series(entry: Mapping[str, object], legend: str, end: float) -> Series:
    labels, samples = entry["metric"], entry["values"]
    assert isinstance(labels, dict)
    assert isinstance(samples, list)
    name = re.sub(r"\{\{(\w+)}}", lambda match: labels.get(match[1], ""), legend)
    points = np.array(samples, float)
    return Series(name, (points[:, 0] - end) / 60, points[:, 1])


def draw(
    dashboard: Dashboard, client: PrometheusClient, begin: float, end: float, path: Path
) -> None:
    """Draw a dashboard as a PNG."""
    rows = -(-len(dashboard.panels) // _COLUMNS)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(_COLUMNS * width, rows * height), layout="constrained", dpi=_DPI)
    figure.suptitle(dashboard.title, fontsize=14, fontweight="bold")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
    for panel, axis in zip(dashboard.panels, axes, strict=False):
        _draw_panel(panel, axis, client, begin, end)
    for axis in axes[len(dashboard.panels) :]:
        axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, pil_kwargs={"optimize": True})


def _draw_panel(
    panel: Panel, axis: Axes, client: PrometheusClient, begin: float, end: float
) -> None:
    lines = [
        series
        for query in panel.queries
        for series in client.series(for_all_runs(query.expression), query.legend, begin, end)
    ]
    for number, series in enumerate(lines):
        label = series.legend if number < _MAX_LEGEND else "_nolegend_"
        axis.plot(series.minutes, series.values, linewidth=1.6, label=label)
    axis.set_title(panel.title, fontsize=11, loc="left")
    axis.set_xlim((begin - end) / 60, 0)
    axis.set_ylim(0, None if panel.maximum is None else _TOP * panel.maximum)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    if panel.unit in _FORMATS:
        write = _FORMATS[panel.unit]
        axis.yaxis.set_major_formatter(lambda value, _: write(value))
    if lines:
        axis.legend(fontsize=8, loc="best", framealpha=0.8)
    else:
        axis.set_yticks([])
        axis.text(0.5, 0.5, "no data", ha="center", va="center", transform=axis.transAxes)


def draw_all(client: PrometheusClient, folder: Path, minutes: float) -> None:
    """Draw all dashboards into a folder.

    Args:
        minutes: before now that the pictures show.
    """
    mpl.use("agg")
    end = time.time()
    for dashboard in DASHBOARDS:
        path = folder / f"dashboard-{dashboard.name}.png"
        draw(dashboard, client, end - 60 * minutes, end, path)


if __name__ == "__main__":
    draw_all(PrometheusClient(sys.argv[1]), Path(sys.argv[2]), _DEFAULT_MINUTES)
