"""Expressions of PromQL that dashboards and alerts share."""

from __future__ import annotations

from finsent.metric_list import Metric

CLIENTS = 'operation!~"health|readyz|livez|ping|metrics"'  # requests that are no probes


def rate(metric: Metric, selector: str = "", *, suffix: str = "", window: str = "5m") -> str:
    """Return the expression of a counter's increase per second.

    Args:
        selector: of labels, without braces.
        suffix: of a histogram's series.
    """
    return f"rate({metric.series}{suffix}{braces(selector)}[{window}])"


def quantile(share: float, metric: Metric, selector: str = "") -> str:
    """Return the expression of a histogram's quantile over five minutes."""
    increases = rate(metric, selector, suffix="_bucket")
    return f"histogram_quantile({share:g}, sum by (le) ({increases}))"


def ratio(part: str, total: str) -> str:
    """Return the expression of a ratio of sums. The part may have no series yet."""
    return f"(sum({part}) or vector(0)) / sum({total})"


def mean(metric: Metric, labels: str = "") -> str:
    """Return the expression of a histogram's mean over five minutes, by labels."""
    by = f" by ({labels})" if labels else ""
    return f"sum{by} ({rate(metric, suffix='_sum')}) / sum{by} ({rate(metric, suffix='_count')})"


def braces(selector: str) -> str:
    """Return a selector of labels in braces, or nothing."""
    return f"{{{selector}}}" if selector else ""
