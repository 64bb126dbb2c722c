"""Pictures and tables of results, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from finsent.evaluation.caveats import over_labels, overlap_line
from finsent.evaluation.domain_report import shown_biases
from finsent.evaluation.slices import wilson
from finsent.labels import LABELS
from finsent.reports.pictures import Draw, save

Result = dict[str, Any]

_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#999999"
_KINDS = {"mft": "#0072B2", "inv": "#009E73", "dir": "#E69F00"}
KIND_NAMES = {"mft": "minimum functionality", "inv": "invariance", "dir": "direction"}
_MOST_SLICES = 24
_LONGEST_NAME = 44


def pictures_of(result: Result) -> dict[str, Draw[Result]]:
    """What can be drawn of a result, in the order of the report."""
    abstention, behavior = result.get("abstention") or {}, result.get("behavior") or {}
    there = {
        "confusion": result.get("confusion"),
        "reliability": _filled(result.get("reliability")),
        "coverage": abstention.get("curve"),
        "slices": _large(result),
        "behavior": behavior.get("groups"),
    }
    return {name: draw for name, draw in _PICTURES.items() if there[name]}


# --- confusion ----------------------------------------------------------------------------------


def confusion_picture(matrix: npt.NDArray[np.int64], path: Path, title: str) -> None:
    """A confusion matrix as PNG: counts, colored by their share of the true label's rows."""
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


def _filled(bins: list[Result] | None) -> list[Result]:
    """The bins that hold rows."""
    return [each for each in bins or [] if each["rows"]]


def _reliability(axes: Any, result: Result) -> None:
    """Accuracy by confidence; a dot's area is its share of the rows."""
    axes.figure.set_size_inches(5.6, 4.8)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=":", label="as it should be")
    before, after = _filled(result.get("reliability_before")), _filled(result["reliability"])
    calibration = result.get("calibration") or {}
    name = calibration.get("name")  # of a domain's; None: the model's own
    if before:
        line = [[each[key] for each in before] for key in ("confidence", "accuracy")]
        shown = "before calibration" if name is None else "the model's own calibration"
        shown = _with_ece(shown, calibration.get("ece_before"))
        axes.plot(*line, color=_RED, linewidth=1, linestyle="--", marker="x", label=shown)
    x, y, rows = (
        np.array([each[key] for each in after]) for key in ("confidence", "accuracy", "rows")
    )
    ends = [wilson(round(share * n), int(n)) for share, n in zip(y, rows, strict=True)]
    reach = np.abs(np.array(ends).T - y)
    after_name = "after calibration" if name is None else f"calibration {name}"
    shown = _with_ece(after_name if before else "the model", result.get("ece"))
    axes.errorbar(x, y, reach, color=_BLUE, linewidth=1.2, elinewidth=0.8, label=shown)
    axes.scatter(x, y, s=20 + 180 * rows / rows.sum(), color=_BLUE, zorder=3)
    low = min(1 / len(LABELS), *x, *(each["confidence"] for each in before))
    axes.set_xlim(low - 0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel("confidence (probability of the predicted label)")
    axes.set_ylabel("accuracy")
    axes.set_title("Does confidence mean what it says?", loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _with_ece(name: str, ece: float | None) -> str:
    return name if ece is None else f"{name}, ECE {ece:.3f}"


def _coverage(axes: Any, result: Result) -> None:
    """Accuracy among the rows that are answered, by the share that is."""
    rule = result["abstention"]
    axes.figure.set_figheight(3.6)
    x, y = ([point[key] for point in rule["curve"]] for key in ("coverage", "accuracy"))
    axes.plot(x, y, color=_BLUE, linewidth=1.5)
    wanted, threshold = rule.get("wanted_accuracy"), rule.get("threshold")
    if wanted is not None:
        axes.axhline(wanted, color=_GREY, linewidth=1, linestyle=":")
        axes.text(0.005, wanted, f"wanted: {wanted:g}", fontsize=9, va="bottom", color="#666666")
    if threshold is not None and rule.get("accuracy") is not None:
        place = (rule["coverage"], rule["accuracy"])
        axes.scatter(*place, color=_RED, zorder=3)
        axes.annotate(
            f"confidence from {threshold:.2f} on:\n{place[0]:.0%} answered, {place[1]:.1%} right",
            place,
            xytext=(-8, -12),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
        )
    axes.set_xlim(0, 1.01)
    axes.set_ylim(min(0.95, *y, 1 if wanted is None else wanted) - 0.05, 1.01)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("rows answered, the surest first")
    axes.set_ylabel("accuracy among them")
    axes.set_title("What abstention buys", loc="left", fontsize=11)


# --- parts --------------------------------------------------------------------------------------


def _large(result: Result) -> list[Result]:
    """The slices that are large enough to be judged."""
    return [part for part in result.get("slices") or [] if not part.get("small")]


def _slices(axes: Any, result: Result) -> None:
    shown = _large(result)[:_MOST_SLICES]
    axes.figure.set_figheight(1.2 + 0.3 * max(len(shown), 3))
    names = [_cut(f"{part['slice']}: {part['value']}") for part in shown]
    accuracy = np.array([part["accuracy"] for part in shown])
    places = np.arange(len(shown))
    reach = np.abs(np.array([part["interval"] for part in shown]).T - accuracy)
    axes.errorbar(accuracy, places, xerr=reach, fmt="o", color=_BLUE, elinewidth=1.5, markersize=5)
    title = "Accuracy by slice, the worst first"
    if result.get("accuracy") is not None:
        axes.axvline(result["accuracy"], color=_RED, linewidth=1, linestyle="--")
        title += f"; dashed: all rows, {result['accuracy']:.3f}"
    axes.set_title(title, loc="left", fontsize=11)
    for place, part in enumerate(shown):
        axes.text(
            1.01,
            place,
            f"{part['rows']:,}",
            va="center",
            fontsize=9,
            transform=axes.get_yaxis_transform(),
        )
    axes.set_yticks(places, names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, with 95 % intervals; rows at the right")


def _behavior(axes: Any, result: Result) -> None:
    groups = sorted(result["behavior"]["groups"], key=lambda group: -group["failure_rate"])
    axes.figure.set_figheight(1.4 + 0.21 * max(len(groups), 3))
    places = np.arange(len(groups))
    for kind, color in _KINDS.items():
        here = [i for i, group in enumerate(groups) if group["kind"] == kind]
        if here:
            rates = [groups[i]["failure_rate"] for i in here]
            axes.barh(places[here], rates, color=color, label=KIND_NAMES[kind])
    for place, group in enumerate(groups):
        text = f" {group['failed']} of {group['cases']}"
        axes.text(group["failure_rate"], place, text, va="center", fontsize=8)
    axes.set_yticks(places, [_cut(group["group"]) for group in groups], fontsize=8)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("cases that fail")
    axes.set_title("Cases of the behavior suite that fail", loc="left", fontsize=11)
    axes.legend(loc="lower right", fontsize=9)


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


_PICTURES: dict[str, Draw[Result]] = {
    "confusion": _confusion,
    "reliability": _reliability,
    "coverage": _coverage,
    "slices": _slices,
    "behavior": _behavior,
}

# --- tables -------------------------------------------------------------------------------------


_SHOWN = {
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
    """The model with its intervals beside its baselines: overall, and F1 by label."""
    table = Table(title=Text(title))  # not markup: a file name may hold brackets
    others = result.get("baselines", {})
    table.add_column("")
    for name in ("model", "95 % interval", *others):
        table.add_column(name, justify="right")
    everything = [result, *others.values()]
    for name, shown in _SHOWN.items():
        values = [_figure(found.get(name)) for found in everything]
        shown += over_labels(result) if name == "macro_f1" else ""
        table.add_row(shown, values[0], _interval(result, name), *values[1:])
    for label in LABELS:
        values = [_figure(found["labels"][label]["f1"]) for found in everything]
        table.add_row(f"F1 {label}", values[0], "", *values[1:])
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(result: dict[str, Any], name: str) -> str:
    found = result.get("intervals", {}).get(name)
    return f"{found[0]:.3f} to {found[1]:.3f}" if found else ""


def trust_lines(result: dict[str, Any]) -> list[str]:
    """Return which rows are new to the model, what the labels allow, and when it abstains."""
    lines = [overlap_line(result)]
    if ceiling := result["noise_ceiling"]:
        lines.append(
            f"noise ceiling: {ceiling['kept']:.3f} accuracy on the rows that were kept, "
            f"{ceiling['rows_in']:.3f} on all that were read"
        )
    rule = result["abstention"]
    lines.append(_calibration_line(result["calibration"]))
    if rule["threshold"] is None:
        lines.append(f"abstains never: {rule['reason']}")
    elif rule["threshold"] > 1:
        lines.append(f"abstains from every row: {rule['reason']}")
    else:
        lines.append(
            f"abstains below {rule['threshold']:.3f}: answers {rule['coverage']:.1%} of these rows "
            f"with accuracy {_figure(rule['accuracy'])} (wanted {rule['wanted_accuracy']:g}"
            f"{', which so few rows cannot show' if rule['holds'] is None else ''})"
        )
    return lines


def _calibration_line(found: Result) -> str:
    """Return what a calibration does to the ECE of the rows."""
    before, after = _figure(found["ece_before"]), _figure(found["ece_after"])
    temperature = f"temperature {found['temperature']:.3f}"
    if found.get("name") is None:
        return f"{temperature}: ECE of these rows {before} without it, {after} with it"
    return (
        f"calibration {found['name']}, {temperature}, biases {shown_biases(found['biases'])}: ECE "
        f"of these rows {before} by the model's own calibration, {after} by {found['name']}"
    )


def agreement_table(result: dict[str, Any]) -> Table | None:
    """Return accuracy by the annotators' agreement; None where no row's agreement is known."""
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
    """Precision, recall, F1 and rows of each label, for the model."""
    table = Table(title="model, by label")
    for name in ("label", "precision", "recall", "F1", "AUROC", "rows"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for label, found in result["labels"].items():
        figures = [_figure(found.get(name)) for name in ("precision", "recall", "f1", "auroc")]
        table.add_row(label, *figures, str(found["support"]))
    return table
