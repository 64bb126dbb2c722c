"""What dashboards and alerts consist of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["short", "percentunit", "s", "bytes", "reqps", "ops"]  # Grafana's names
Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Planted:
    """A time series that a test of promtool makes up: one sample per minute."""

    series: str  # with labels
    values: str  # in promtool's notation, e.g. `0+10x60`


@dataclass(frozen=True)
class Query:
    """A query of PromQL."""

    expression: str
    legend: str  # in Grafana's notation, e.g. `{{status}}`
    planted: tuple[Planted, ...] = ()  # for a query that returns data only on a fault or a GPU


@dataclass(frozen=True)
class Panel:
    """A picture of a dashboard."""

    title: str
    text: str  # what it shows, and what to do about it
    unit: Unit
    queries: tuple[Query, ...]
    maximum: float | None = None  # of the axis


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; its name is that of its file."""

    name: str
    title: str
    text: str
    panels: tuple[Panel, ...]
    selects_run: bool = False  # whether queries contain `$run`, which the reader selects


@dataclass(frozen=True)
class Alert:
    """An alert rule with planted series that show when the rule fires."""

    name: str
    expression: str
    minutes: int  # for which the expression must hold
    severity: Severity
    summary: str  # `{{ $labels.NAME }}` is replaced
    action: str
    fires: tuple[Planted, ...]
    quiet: tuple[Planted, ...]
    labels: tuple[tuple[str, str], ...] = ()  # of the alert that the planted series fire
    hours: float = 2.0  # time of the planted series at which the rule is evaluated


@dataclass(frozen=True)
class Recording:
    """A rule that stores the result of a query as a new series."""

    series: str
    expression: str
