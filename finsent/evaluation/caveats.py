"""Caveats of evaluation figures, for terminal and report."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Literal

from finsent.evaluation.comparison_record import ComparisonRecord
from finsent.inference.truncation_record import truncation_line
from finsent.labels import LABELS
from finsent.metrics_record import (
    OverlapCounts,
    OverlapFigures,
    StoredMetrics,
    UnseenScores,
)


def caveats(metrics: StoredMetrics) -> Iterator[str]:
    """Yield the reasons why the figures may be too good, and what they do not cover."""
    yield from filter(
        None,
        (
            overlap_caveat(metrics),
            absent_label_caveat(metrics),
            metrics.truncation and truncation_line(metrics.truncation),
            promise_caveat(metrics),
        ),
    )


# --- rows that the model was trained on -----------------------------------------------------------


def overlap_line(overlap: OverlapCounts, rows: int) -> str:
    """Return how many of the rows the model was trained on, or why the number is not known."""
    if overlap.rows is None:
        return f"trained on: not known how many of these {rows:,} rows ({overlap.reason})"
    reason = f" ({overlap.reason})" if overlap.reason else ""
    return f"trained on: {_overlap_count(overlap)} of these {rows:,} rows{reason}"


def overlap_caveat(metrics: StoredMetrics) -> str | None:
    """Return how rows that the model was trained on change the figures."""
    overlap = metrics.overlap or OverlapFigures(rows=metrics.seen_in_training)
    if not overlap.rows and not overlap.near_copies:
        return None
    unseen = overlap.unseen
    figures = "so the figures flatter it"
    if unseen is not None:
        figures = (
            f"so the figures flatter it: macro-F1 {metrics.macro_f1:.3f} with them, "
            f"{_with_interval(unseen, 'macro_f1')} on the other {unseen.rows:,} rows; accuracy "
            f"{metrics.accuracy:.3f} with them, {_with_interval(unseen, 'accuracy')} without"
        )
    elif "unseen" in overlap.model_fields_set:
        figures = "and no other row is left to measure on"
    return (
        f"The model was trained on {_overlap_count(overlap)} of these rows, {figures}. Keep a "
        "benchmark unseen with data.exclude, and train again."
    )


def _overlap_count(overlap: OverlapCounts) -> str:
    rows, near = overlap.rows, overlap.near_copies
    if not rows:
        return f"near copies of {near:,}" if near else "none"
    return f"{rows:,}" + (f" and near copies of {near:,} more" if near else "")


def _with_interval(figures: UnseenScores, name: Literal["accuracy", "macro_f1"]) -> str:
    value: float = getattr(figures, name)
    interval = figures.intervals.get(name)
    bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{value:.3f}{bounds}"


def comparison_caveats(comparison: ComparisonRecord) -> Iterator[str]:
    """Yield the caveats of a comparison."""
    for name, overlap in comparison.overlap.items():
        model = name.upper()
        if overlap.rows is None:
            yield f"It is not known which rows {model} was trained on: {overlap.reason}."
        elif overlap.near_copies:
            yield (
                f"{overlap.near_copies:,} of the {comparison.rows:,} compared rows are near "
                f"copies of rows that {model} was trained on, which flatters {model}."
            )
    if all_rows := comparison.with_seen:
        a, b = all_rows.a, all_rows.b
        yield (
            f"With the rows that A or B was trained or validated on ({all_rows.rows:,} rows): "
            f"B reaches macro-F1 {b.macro_f1:.3f} against {a.macro_f1:.3f}, accuracy "
            f"{b.accuracy:.3f} against {a.accuracy:.3f}."
        )
    if absent := absent_labels(comparison.macro_over):
        yield (
            f"No row is {' or '.join(absent)}: macro-F1 is the mean over "
            f"{' and '.join(comparison.macro_over)}."
        )
    for name, truncation in comparison.truncation.items():
        if line := truncation_line(truncation):
            yield f"{name.upper()}: {line}"


# --- labels without rows --------------------------------------------------------------------------


def absent_labels(macro_over: Sequence[str] | None) -> list[str]:
    """Return the labels that no row has.

    Args:
        macro_over: labels with rows; None: not known.
    """
    if macro_over is None:
        return []
    return [label for label in LABELS if label not in macro_over]


def over_labels(macro_over: Sequence[str] | None) -> str:
    """Return ` over LABELS` where macro-F1 is not over all labels, else an empty string."""
    return f" over {' and '.join(macro_over or ())}" if absent_labels(macro_over) else ""


def absent_label_caveat(metrics: StoredMetrics) -> str | None:
    """Return which labels no row has, and which labels the figures are over."""
    absent = absent_labels(metrics.macro_over)
    if not absent:
        return None
    wrong = sum(row[LABELS.index(name)] for name in absent for row in metrics.confusion or ())
    answered = f" {wrong:,} rows have such an answer, which counts as wrong." if wrong else ""
    return (
        f"No row is {' or '.join(absent)}: macro-F1 and AUROC are means over "
        f"{' and '.join(metrics.macro_over or ())} and compare with no figure over all labels."
        f"{answered}"
    )


# --- the accuracy that the abstention threshold promises ------------------------------------------


def promise_caveat(metrics: StoredMetrics) -> str | None:
    """Return the caveat that the rows miss the wanted accuracy; None: no caveat."""
    rule = metrics.abstention
    if rule is None or rule.holds is not False or rule.interval is None:
        return None
    low, high = rule.interval
    return (
        f"The promised accuracy of {rule.wanted_accuracy:g} does not hold on these rows: "
        f"{rule.accuracy:.3f} ({low:.3f} to {high:.3f}) on the {rule.coverage:.1%} that are "
        f"answered. {calibrate_remedy(metrics)}"
    )


def calibrate_remedy(metrics: StoredMetrics) -> str:
    """Return the command that calibrates a model for rows like the evaluated rows."""
    version = metrics.model_version
    if version is None:
        return (
            "Publish the model first (`ray_jobs.publish`), then calibrate the version for such "
            "rows (`ray_jobs.calibrate`)."
        )
    sources = ",".join(map(_yaml, metrics.sources or ["FILE"]))
    command = f"calibrate.model=version:{version} calibrate.name=NAME"
    quoted = shlex.quote(f"calibrate.sources=[{sources}]")
    return f"Calibrate for such rows: `python -m ray_jobs.calibrate {command} {quoted}`."


def _yaml(text: str) -> str:
    """Return a string as an element of a YAML list, quoted where YAML would misread it."""
    return text if re.fullmatch(r"[a-zA-Z./][\w./-]*", text) else json.dumps(text)
