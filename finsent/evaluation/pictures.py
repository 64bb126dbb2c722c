"""Pictures and tables of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from finsent.evaluation.caveats import over_labels, overlap_line
from finsent.evaluation.domain_report import biases_line
from finsent.evaluation.slices import wilson
from finsent.labels import LABELS
from finsent.reports.pictures import Draw, save

Result = dict[str, Any]

_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#999999"
_KINDS = {"mft": "#0072B2", "inv": "#009E73", "dir": "#E69F00"}
KIND_NAMES = {"mft": "minimum functionality", "inv": "invariance", "dir": "direction"}
_MAX_SLICES = 24
_MAX_NAME_CHARS = 44


def pictures_of(result: Result) -> dict[str, Draw[Result]]:
    """Return the pictures that a result has figures for, in the order of the report."""
    abstention, behavior = result.get("abstention") or {}, result.get("behavior") or {}
    figures = {
        "confusion": result.get("confusion"),
        "reliability": _non_empty(result.get("reliability")),
        "coverage": abstention.get("curve"),
        "slices": _large(result),
        "behavior": behavior.get("groups"),
    }
    return {name: draw for name, draw in _PICTURES.items() if figures[name]}


# --- confusion ----------------------------------------------------------------------------------


def confusion_picture(matrix: npt.NDArray[np.int64], path: Path, title: str) -> None:
    """Write a confusion matrix as PNG: counts, colored by share of the true label's rows."""
    save(lambda axes, value: _draw_confusion(axes, value, title), matrix, path)


def _confusion(axes: Any, result: Result) -> None:
    _draw_confusion(axes, np.array(result["confusion"]), "Predicted and true labels")


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


def _non_empty(bins: list[Result] | None) -> list[Result]:
    """Return the bins with rows."""
    return [bin_ for bin_ in bins or [] if bin_["rows"]]


def _reliability(axes: Any, result: Result) -> None:
    """Draw accuracy by confidence; the area of a dot is its share of the rows."""
    axes.figure.set_size_inches(5.6, 4.8)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":", label="perfectly calibrated")
    before, after = _non_empty(result.get("reliability_before")), _non_empty(result["reliability"])
    calibration = result.get("calibration") or {}
    name = calibration.get("name")  # of a calibration for a domain; None: the model's own
    if before:
        line = [[bin_[key] for bin_ in before] for key in ("confidence", "accuracy")]
        before_name = "before calibration" if name is None else "the model's own calibration"
        label = _with_ece(before_name, calibration.get("ece_before"))
        axes.plot(*line, color=_RED, linewidth=1, linestyle="--", marker="x", label=label)
    x, y, rows = (
        np.array([bin_[key] for bin_ in after]) for key in ("confidence", "accuracy", "rows")
    )
    bounds = [
        wilson(round(share * count), int(count)) for share, count in zip(y, rows, strict=True)
    ]
    distances = np.abs(np.array(bounds).T - y)
    after_name = "after calibration" if name is None else f"calibration {name}"
    label = _with_ece(after_name if before else "the model", result.get("ece"))
    axes.errorbar(x, y, distances, color=_BLUE, linewidth=1.2, elinewidth=0.8, label=label)
    axes.scatter(x, y, s=20 + 180 * rows / rows.sum(), color=_BLUE, zorder=3)
    low = min(1 / len(LABELS), *x, *(bin_["confidence"] for bin_ in before))
    axes.set_xlim(low - 0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel("confidence (probability of the predicted label)")
    axes.set_ylabel("accuracy")
    axes.set_title("Accuracy by confidence", loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _with_ece(name: str, ece: float | None) -> str:
    return name if ece is None else f"{name}, ECE {ece:.3f}"


def _coverage(axes: Any, result: Result) -> None:
    """Draw accuracy among the answered rows by the share of answered rows."""
    rule = result["abstention"]
    axes.figure.set_figheight(3.6)
    x, y = ([point[key] for point in rule["curve"]] for key in ("coverage", "accuracy"))
    axes.plot(x, y, color=_BLUE, linewidth=1.5)
    wanted, threshold = rule.get("wanted_accuracy"), rule.get("threshold")
    if wanted is not None:
        axes.axhline(wanted, color=_GREY, linewidth=1, linestyle=":")
        axes.text(0.005, wanted, f"wanted: {wanted:g}", fontsize=9, va="bottom", color="#666666")
    if threshold is not None and rule.get("accuracy") is not None:
        point = (rule["coverage"], rule["accuracy"])
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


def _large(result: Result) -> list[Result]:
    """Return the slices with enough rows to judge."""
    return [part for part in result.get("slices") or [] if not part.get("small")]


def _slices(axes: Any, result: Result) -> None:
    slices = _large(result)[:_MAX_SLICES]
    axes.figure.set_figheight(1.2 + 0.3 * max(len(slices), 3))
    names = [_shortened(f"{part['slice']}: {part['value']}") for part in slices]
    accuracy = np.array([part["accuracy"] for part in slices])
    positions = np.arange(len(slices))
    distances = np.abs(np.array([part["interval"] for part in slices]).T - accuracy)
    axes.errorbar(
        accuracy, positions, xerr=distances, fmt="o", color=_BLUE, elinewidth=1.5, markersize=5
    )
    title = "Accuracy by slice, the worst first"
    if result.get("accuracy") is not None:
        axes.axvline(result["accuracy"], color=_RED, linewidth=1, linestyle="--")
        title += f"; dashed: all rows, {result['accuracy']:.3f}"
    axes.set_title(title, loc="left", fontsize=11)
    for position, part in enumerate(slices):
        axes.text(
            1.01,
            position,
            f"{part['rows']:,}",
            va="center",
            fontsize=9,
            transform=axes.get_yaxis_transform(),
        )
    axes.set_yticks(positions, names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, with 95 % intervals; rows at the right")


def _behavior(axes: Any, result: Result) -> None:
    groups = sorted(result["behavior"]["groups"], key=lambda group: -group["failure_rate"])
    axes.figure.set_figheight(1.4 + 0.21 * max(len(groups), 3))
    positions = np.arange(len(groups))
    for kind, color in _KINDS.items():
        indices = [i for i, group in enumerate(groups) if group["kind"] == kind]
        if indices:
            rates = [groups[i]["failure_rate"] for i in indices]
            axes.barh(positions[indices], rates, color=color, label=KIND_NAMES[kind])
    for position, group in enumerate(groups):
        text = f" {group['failed']} of {group['cases']}"
        axes.text(group["failure_rate"], position, text, va="center", fontsize=8)
    axes.set_yticks(positions, [_shortened(group["group"]) for group in groups], fontsize=8)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("cases that fail")
    axes.set_title("Cases of the behavior suite that fail", loc="left", fontsize=11)
    axes.legend(loc="lower right", fontsize=9)


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME_CHARS else f"{name[: _MAX_NAME_CHARS - 1]}…"


_PICTURES: dict[str, Draw[Result]] = {
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


def score_table(result: dict[str, Any], title: str) -> Table:
    """Return the figures of the model with intervals, and of its baselines."""
    table = Table(title=Text(title))  # no markup: a file name may have brackets
    baselines = result.get("baselines", {})
    table.add_column("")
    for name in ("model", "95 % interval", *baselines):
        table.add_column(name, justify="right")
    models = [result, *baselines.values()]
    for name, title in _FIGURE_NAMES.items():
        values = [_figure(figures.get(name)) for figures in models]
        title += over_labels(result) if name == "macro_f1" else ""
        table.add_row(title, values[0], _interval(result, name), *values[1:])
    for label in LABELS:
        values = [_figure(figures["labels"][label]["f1"]) for figures in models]
        table.add_row(f"F1 {label}", values[0], "", *values[1:])
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(result: dict[str, Any], name: str) -> str:
    interval = result.get("intervals", {}).get(name)
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


def trust_lines(result: dict[str, Any]) -> list[str]:
    """Return training overlap, noise ceiling, calibration and abstention, one per line."""
    lines = [overlap_line(result)]
    if ceiling := result["noise_ceiling"]:
        lines.append(
            f"noise ceiling: {ceiling['kept']:.3f} accuracy on the kept rows, "
            f"{ceiling['rows_in']:.3f} on all rows that were read"
        )
    rule = result["abstention"]
    lines.append(_calibration_line(result["calibration"]))
    if rule["threshold"] is None:
        lines.append(f"never abstains: {rule['reason']}")
    elif rule["threshold"] > 1:
        lines.append(f"abstains from every row: {rule['reason']}")
    else:
        lines.append(
            f"abstains below {rule['threshold']:.3f}: answers {rule['coverage']:.1%} of these rows "
            f"with accuracy {_figure(rule['accuracy'])} (wanted {rule['wanted_accuracy']:g}"
            f"{', which too few rows show' if rule['holds'] is None else ''})"
        )
    return lines


def _calibration_line(calibration: Result) -> str:
    """Return the temperature and the ECE of the rows with and without the calibration."""
    before, after = _figure(calibration["ece_before"]), _figure(calibration["ece_after"])
    temperature = f"temperature {calibration['temperature']:.3f}"
    if calibration.get("name") is None:
        return f"{temperature}: ECE of these rows {before} without it, {after} with it"
    return (
        f"calibration {calibration['name']}, {temperature}, biases "
        f"{biases_line(calibration['biases'])}: ECE of these rows {before} by the model's own "
        f"calibration, {after} by {calibration['name']}"
    )


def agreement_table(result: dict[str, Any]) -> Table | None:
    """Return accuracy by the annotators' agreement; None: no row's agreement is known."""
    levels = result.get("agreement") or []
    if not levels:
        return None
    table = Table(title="accuracy by the annotators' agreement")
    for name in ("agreement", "rows", "annotators", "model", "95 % interval", "macro-F1"):
        table.add_column(name, justify="left" if name == "agreement" else "right")
    for part in levels:
        low, high = part["interval"]
        table.add_row(
            part["level"],
            f"{part['rows']:,}",
            f"{part['annotators']:.3f}",
            f"{part['accuracy']:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{part['macro_f1']:.3f}",
        )
    return table


def label_table(result: dict[str, Any]) -> Table:
    """Return precision, recall, F1, AUROC and rows of each label, for the model."""
    table = Table(title="model, by label")
    for name in ("label", "precision", "recall", "F1", "AUROC", "rows"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for label, figures in result["labels"].items():
        cells = [_figure(figures.get(name)) for name in ("precision", "recall", "f1", "auroc")]
        table.add_row(label, *cells, str(figures["support"]))
    return table
