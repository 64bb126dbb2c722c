"""Pictures and tables of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from finsent.evaluation.caveats import over_labels, overlap_line
from finsent.evaluation.domain_report import biases_line
from finsent.evaluation.slices import wilson
from finsent.labels import LABELS
from finsent.metrics_record import (
    Abstention,
    AgreementLevel,
    Behavior,
    BehaviorGroup,
    CalibrationEffect,
    EvaluationMetrics,
    Interval,
    LabelScores,
    ReliabilityBin,
    Slice,
    StoredMetrics,
    StoredScores,
)
from finsent.reports.pictures import Draw, save

_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#999999"
_KINDS = {"mft": "#0072B2", "inv": "#009E73", "dir": "#E69F00"}
KIND_NAMES = {"mft": "minimum functionality", "inv": "invariance", "dir": "direction"}
_MAX_SLICES = 24
_MAX_NAME_CHARS = 44


def pictures_of(metrics: StoredMetrics) -> dict[str, Draw[StoredMetrics]]:
    """Return the pictures that an evaluation has figures for, in the order of the report."""
    has_figures = {
        "confusion": bool(metrics.confusion),
        "reliability": bool(_non_empty(metrics.reliability)),
        "coverage": metrics.abstention is not None and bool(metrics.abstention.curve),
        "slices": bool(_large(metrics)),
        "behavior": metrics.behavior is not None and bool(metrics.behavior.groups),
    }
    return {name: draw for name, draw in _PICTURES.items() if has_figures[name]}


# --- confusion ----------------------------------------------------------------------------------


def confusion_picture(matrix: npt.NDArray[np.int64], path: Path, title: str) -> None:
    """Write a confusion matrix as PNG: counts, colored by share of the true label's rows."""
    save(lambda axes, value: _draw_confusion(axes, value, title), matrix, path)


def _confusion(axes: Any, metrics: StoredMetrics) -> None:
    _draw_confusion(axes, np.array(metrics.confusion), "Predicted and true labels")


def _draw_confusion(axes: Any, matrix: npt.NDArray[np.int64], title: str) -> None:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.figure.set_size_inches(5.6, 4.8)
    axes.spines[:].set_visible(True)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(matrix):
        color = "white" if shares[i, j] > 0.55 else "#1a1a1a"
        axes.text(j, i, f"{count:,}\n{shares[i, j]:.0%}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(LABELS)), LABELS)
    axes.set_yticks(range(len(LABELS)), LABELS)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    axes.figure.colorbar(image, ax=axes, label="share of the true label's rows")


# --- confidence ---------------------------------------------------------------------------------


class _Points(NamedTuple):
    """The bins with rows of a reliability diagram."""

    confidence: list[float]
    accuracy: list[float]
    rows: list[int]


def _non_empty(bins: Sequence[ReliabilityBin] | None) -> list[ReliabilityBin]:
    """Return the bins with rows."""
    return [bin_ for bin_ in bins or () if bin_.rows]


def _points(bins: Sequence[ReliabilityBin] | None) -> _Points:
    points = _Points([], [], [])
    for bin_ in _non_empty(bins):
        if bin_.confidence is not None and bin_.accuracy is not None:
            points.confidence.append(bin_.confidence)
            points.accuracy.append(bin_.accuracy)
            points.rows.append(bin_.rows)
    return points


def _reliability(axes: Any, metrics: StoredMetrics) -> None:
    """Draw accuracy by confidence; the area of a dot is its share of the rows."""
    axes.figure.set_size_inches(5.6, 4.8)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":", label="perfectly calibrated")
    before = _points(metrics.reliability_before)
    calibration = metrics.calibration or CalibrationEffect()
    name = calibration.name
    if before.rows:
        before_name = "before calibration" if name is None else "the model's own calibration"
        label = _with_ece(before_name, calibration.ece_before)
        line = (before.confidence, before.accuracy)
        axes.plot(*line, color=_RED, linewidth=1, linestyle="--", marker="x", label=label)
    x, y, rows = map(np.array, _points(metrics.reliability))
    bounds = [
        wilson(round(share * count), int(count)) for share, count in zip(y, rows, strict=True)
    ]
    distances = np.abs(np.array(bounds).T - y)
    after_name = "after calibration" if name is None else f"calibration {name}"
    label = _with_ece(after_name if before.rows else "the model", metrics.ece)
    axes.errorbar(x, y, distances, color=_BLUE, linewidth=1.2, elinewidth=0.8, label=label)
    axes.scatter(x, y, s=20 + 180 * rows / rows.sum(), color=_BLUE, zorder=3)
    low = min(1 / len(LABELS), *x, *before.confidence)
    axes.set_xlim(low - 0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel("confidence (probability of the predicted label)")
    axes.set_ylabel("accuracy")
    axes.set_title("Accuracy by confidence", loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _with_ece(name: str, ece: float | None) -> str:
    return name if ece is None else f"{name}, ECE {ece:.3f}"


def _coverage(axes: Any, metrics: StoredMetrics) -> None:
    """Draw accuracy among the answered rows by the share of answered rows."""
    rule = metrics.abstention or Abstention()
    curve = rule.curve or ()
    axes.figure.set_figheight(3.6)
    y = [point.accuracy for point in curve]
    axes.plot([point.coverage for point in curve], y, color=_BLUE, linewidth=1.5)
    wanted, threshold = rule.wanted_accuracy, rule.threshold
    if wanted is not None:
        axes.axhline(wanted, color=_GREY, linewidth=1, linestyle=":")
        axes.text(0.005, wanted, f"wanted: {wanted:g}", fontsize=9, va="bottom", color="#666666")
    if threshold is not None and rule.coverage is not None and rule.accuracy is not None:
        point = (rule.coverage, rule.accuracy)
        axes.scatter(*point, color=_RED, zorder=3)
        axes.annotate(
            f"confidence from {threshold:.2f}:\n{point[0]:.0%} answered, {point[1]:.1%} right",
            point,
            xytext=(-8, -12),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
        )
    axes.set_xlim(0, 1.01)
    axes.set_ylim(min(0.95, *y, 1 if wanted is None else wanted) - 0.05, 1.01)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("share of rows answered, highest confidence first")
    axes.set_ylabel("accuracy of the answered rows")
    axes.set_title("Accuracy by coverage", loc="left", fontsize=11)


# --- parts --------------------------------------------------------------------------------------


def _large(metrics: StoredMetrics) -> list[Slice]:
    """Return the slices with enough rows to judge."""
    return [figures for figures in metrics.slices or () if not figures.small]


def _slices(axes: Any, metrics: StoredMetrics) -> None:
    slices = _large(metrics)[:_MAX_SLICES]
    axes.figure.set_figheight(1.2 + 0.3 * max(len(slices), 3))
    names = [_shortened(f"{figures.slice}: {figures.value}") for figures in slices]
    accuracy = np.array([figures.accuracy for figures in slices])
    positions = np.arange(len(slices))
    distances = np.abs(np.array([figures.interval for figures in slices]).T - accuracy)
    axes.errorbar(
        accuracy, positions, xerr=distances, fmt="o", color=_BLUE, elinewidth=1.5, markersize=5
    )
    title = "Accuracy by slice, the worst first"
    if metrics.accuracy is not None:
        axes.axvline(metrics.accuracy, color=_RED, linewidth=1, linestyle="--")
        title += f"; dashed: all rows, {metrics.accuracy:.3f}"
    axes.set_title(title, loc="left", fontsize=11)
    for position, figures in enumerate(slices):
        axes.text(
            1.01,
            position,
            f"{figures.rows:,}",
            va="center",
            fontsize=9,
            transform=axes.get_yaxis_transform(),
        )
    axes.set_yticks(positions, names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, with 95 % intervals; rows at the right")


def _behavior(axes: Any, metrics: StoredMetrics) -> None:
    groups = worst_first(metrics.behavior)
    axes.figure.set_figheight(1.4 + 0.21 * max(len(groups), 3))
    positions = np.arange(len(groups))
    for kind, color in _KINDS.items():
        indices = [i for i, group in enumerate(groups) if group.kind == kind]
        if indices:
            rates = [groups[i].failure_rate for i in indices]
            axes.barh(positions[indices], rates, color=color, label=KIND_NAMES[kind])
    for position, group in enumerate(groups):
        text = f" {group.failed} of {group.cases}"
        axes.text(group.failure_rate, position, text, va="center", fontsize=8)
    axes.set_yticks(positions, [_shortened(group.group) for group in groups], fontsize=8)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("cases that fail")
    axes.set_title("Cases of the behavior suite that fail", loc="left", fontsize=11)
    axes.legend(loc="lower right", fontsize=9)


def worst_first(behavior: Behavior | None) -> list[BehaviorGroup]:
    """Return the groups of a behavior suite by falling failure rate; empty: it was not run."""
    groups = behavior.groups if behavior is not None else None
    return sorted(groups or (), key=lambda group: -group.failure_rate)


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARS else f"{name[: _MAX_NAME_CHARS - 1]}…"


_PICTURES: dict[str, Draw[StoredMetrics]] = {
    "confusion": _confusion,
    "reliability": _reliability,
    "coverage": _coverage,
    "slices": _slices,
    "behavior": _behavior,
}

# --- tables -------------------------------------------------------------------------------------


_FIGURE_NAMES = {
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "mcc": "MCC",
    "auroc": "AUROC",
    "log_loss": "log loss",
    "brier": "Brier",
    "ece": "ECE",
}


def score_table(metrics: EvaluationMetrics, title: str) -> Table:
    """Return the figures of the model with intervals, and of its baselines."""
    table = Table(title=Text(title))  # no markup: a file name may have brackets
    table.add_column("")
    for name in ("model", "95 % interval", *metrics.baselines):
        table.add_column(name, justify="right")
    models: list[StoredScores] = [metrics, *metrics.baselines.values()]
    for name, title in _FIGURE_NAMES.items():
        values = [_figure(getattr(figures, name)) for figures in models]
        title += over_labels(metrics.macro_over) if name == "macro_f1" else ""
        table.add_row(title, values[0], _interval(metrics.intervals.get(name)), *values[1:])
    for label in LABELS:
        values = [_label_f1(figures, label) for figures in models]
        table.add_row(f"F1 {label}", values[0], "", *values[1:])
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _label_f1(figures: StoredScores, label: str) -> str:
    return _figure(figures.labels[label].f1 if figures.labels else None)


def _interval(interval: Interval | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


def trust_lines(metrics: EvaluationMetrics) -> list[str]:
    """Return training overlap, noise ceiling, calibration and abstention, one per line."""
    lines = [overlap_line(metrics.overlap, metrics.rows)]
    if ceiling := metrics.noise_ceiling:
        lines.append(
            f"noise ceiling: {_figure(ceiling.kept)} accuracy on the kept rows, "
            f"{_figure(ceiling.rows_in)} on all rows that were read"
        )
    rule = metrics.abstention
    lines.append(_calibration_line(metrics.calibration))
    if rule.threshold is None:
        lines.append(f"never abstains: {rule.reason}")
    elif rule.threshold > 1:
        lines.append(f"abstains from every row: {rule.reason}")
    else:
        lines.append(
            f"abstains below {rule.threshold:.3f}: answers {rule.coverage:.1%} of these rows "
            f"with accuracy {_figure(rule.accuracy)} (wanted {rule.wanted_accuracy:g}"
            f"{', which too few rows show' if rule.holds is None else ''})"
        )
    return lines


def _calibration_line(calibration: CalibrationEffect) -> str:
    """Return the temperature and the ECE of the rows with and without the calibration."""
    before, after = _figure(calibration.ece_before), _figure(calibration.ece_after)
    temperature = f"temperature {_figure(calibration.temperature)}"
    if calibration.name is None:
        return f"{temperature}: ECE of these rows {before} without it, {after} with it"
    return (
        f"calibration {calibration.name}, {temperature}, biases "
        f"{biases_line(calibration.biases or {})}: ECE of these rows {before} by the model's own "
        f"calibration, {after} by {calibration.name}"
    )


def agreement_table(levels: Sequence[AgreementLevel]) -> Table | None:
    """Return accuracy by the annotators' agreement; None: no row's agreement is known."""
    if not levels:
        return None
    table = Table(title="accuracy by the annotators' agreement")
    for name in ("agreement", "rows", "annotators", "model", "95 % interval", "macro-F1"):
        table.add_column(name, justify="left" if name == "agreement" else "right")
    for level in levels:
        table.add_row(
            level.level,
            f"{level.rows:,}",
            f"{level.annotators:.3f}",
            f"{level.accuracy:.3f}",
            _interval(level.interval),
            f"{level.macro_f1:.3f}",
        )
    return table


def label_table(labels: Mapping[str, LabelScores]) -> Table:
    """Return precision, recall, F1, AUROC and rows of each label, for the model."""
    table = Table(title="model, by label")
    for name in ("label", "precision", "recall", "F1", "AUROC", "rows"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for label, scores in labels.items():
        figures = (scores.precision, scores.recall, scores.f1, scores.auroc)
        table.add_row(label, *map(_figure, figures), str(scores.support))
    return table
