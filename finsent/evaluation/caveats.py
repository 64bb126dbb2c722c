"""Caveats of evaluation figures, for terminal and report."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from finsent.inference.truncation import truncation_line
from finsent.labels import LABELS

Result = dict[str, Any]


def caveats(result: Result) -> Iterator[str]:
    """Yield the reasons why the figures may be too good, and what they do not cover."""
    yield from filter(
        None,
        (
            overlap_caveat(result),
            absent_label_caveat(result),
            truncation_line(result.get("truncation") or {"cut": 0}),
            promise_caveat(result),
        ),
    )


# --- rows that the model was trained on -----------------------------------------------------------


def overlap_line(result: Result) -> str:
    """Return how many rows the model was trained on, or why the number is not known."""
    overlap, rows = result["overlap"], result["rows"]
    if overlap["rows"] is None:
        return f"trained on: not known how many of these {rows:,} rows ({overlap['reason']})"
    reason = f" ({overlap['reason']})" if overlap["reason"] else ""
    return f"trained on: {_overlap_count(overlap)} of these {rows:,} rows{reason}"


def overlap_caveat(result: Result) -> str | None:
    """Return how rows that the model was trained on change the figures."""
    overlap = result.get("overlap") or {"rows": result.get("seen_in_training")}
    if not overlap["rows"] and not overlap.get("near_copies"):
        return None
    unseen = overlap.get("unseen")
    figures = "so the figures flatter it"
    if unseen:
        figures = (
            f"so the figures flatter it: macro-F1 {result['macro_f1']:.3f} with them, "
            f"{_with_interval(unseen, 'macro_f1')} on the other {unseen['rows']:,} rows; accuracy "
            f"{result['accuracy']:.3f} with them, {_with_interval(unseen, 'accuracy')} without"
        )
    elif "unseen" in overlap:
        figures = "and no other row is left to measure on"
    return (
        f"The model was trained on {_overlap_count(overlap)} of these rows, {figures}. Keep a "
        "benchmark unseen with data.exclude, and train again."
    )


def _overlap_count(overlap: Result) -> str:
    rows, near = overlap["rows"], overlap.get("near_copies")
    if not rows:
        return f"near copies of {near:,}" if near else "none"
    return f"{rows:,}" + (f" and near copies of {near:,} more" if near else "")


def _with_interval(figures: Result, name: str) -> str:
    interval = figures["intervals"].get(name)
    bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{figures[name]:.3f}{bounds}"


def comparison_caveats(result: Result) -> Iterator[str]:
    """Yield the caveats of a comparison."""
    for name, overlap in result["overlap"].items():
        model = name.upper()
        if overlap["rows"] is None:
            yield f"It is not known which rows {model} was trained on: {overlap['reason']}."
        elif overlap["near_copies"]:
            yield (
                f"{overlap['near_copies']:,} of the {result['rows']:,} compared rows are near "
                f"copies of rows that {model} was trained on, which flatters {model}."
            )
    if all_rows := result["with_seen"]:
        both = (
            f"{title} {all_rows['b'][key]:.3f} against {all_rows['a'][key]:.3f}"
            for key, title in (("macro_f1", "macro-F1"), ("accuracy", "accuracy"))
        )
        yield (
            f"With the rows that A or B was trained or validated on ({all_rows['rows']:,} rows): "
            f"B reaches {', '.join(both)}."
        )
    if absent := absent_labels(result):
        yield (
            f"No row is {' or '.join(absent)}: macro-F1 is the mean over "
            f"{' and '.join(result['macro_over'])}."
        )
    for name in "ab":
        if line := truncation_line(result["truncation"][name]):
            yield f"{name.upper()}: {line}"


# --- labels without rows --------------------------------------------------------------------------


def absent_labels(result: Result) -> list[str]:
    """Return the labels that no row has."""
    over = result.get("macro_over")
    return [] if over is None else [label for label in LABELS if label not in over]


def over_labels(result: Result) -> str:
    """Return ` over LABELS` where macro-F1 is not over all labels, else an empty string."""
    return f" over {' and '.join(result['macro_over'])}" if absent_labels(result) else ""


def absent_label_caveat(result: Result) -> str | None:
    """Return which labels no row has, and which labels the figures are over."""
    absent = absent_labels(result)
    if not absent:
        return None
    confusion = result.get("confusion")
    wrong = sum(row[LABELS.index(name)] for name in absent for row in confusion or [])
    answered = f" {wrong:,} rows have such an answer, which counts as wrong." if wrong else ""
    return (
        f"No row is {' or '.join(absent)}: macro-F1 and AUROC are means over "
        f"{' and '.join(result['macro_over'])} and compare with no figure over all labels."
        f"{answered}"
    )


# --- the accuracy that the abstention threshold promises ------------------------------------------


def promise_caveat(result: Result) -> str | None:
    """Return the caveat that the rows miss the wanted accuracy; None: no caveat."""
    rule = result.get("abstention") or {}
    if rule.get("holds") is not False:
        return None
    low, high = rule["interval"]
    return (
        f"The promised accuracy of {rule['wanted_accuracy']:g} does not hold on these rows: "
        f"{rule['accuracy']:.3f} ({low:.3f} to {high:.3f}) on the {rule['coverage']:.1%} that are "
        f"answered. {calibrate_remedy(result)}"
    )


def calibrate_remedy(result: Result) -> str:
    """Return the command that calibrates a model for rows like the evaluated rows."""
    version = result.get("model_version")
    if version is None:
        return (
            "Publish the model first (`ray_jobs.publish`), then calibrate the version for such "
            "rows (`ray_jobs.calibrate`)."
        )
    sources = ",".join(map(_yaml, result.get("sources") or ["FILE"]))
    command = f"calibrate.model=version:{version} calibrate.name=NAME"
    quoted = shlex.quote(f"calibrate.sources=[{sources}]")
    return f"Calibrate for such rows: `python -m ray_jobs.calibrate {command} {quoted}`."


def _yaml(text: str) -> str:
    """Return a string as an element of a YAML list, quoted where YAML would misread it."""
    return text if re.fullmatch(r"[a-zA-Z./][\w./-]*", text) else json.dumps(text)
