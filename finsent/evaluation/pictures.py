"""Pictures and tables of results, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from finsent.labels import LABELS


def confusion_picture(matrix: npt.NDArray[np.int64], path: Path, title: str) -> None:
    """A confusion matrix as PNG: counts, coloured by their share of the true label's rows."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(5.6, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(matrix):
        color = "white" if shares[i, j] > 0.55 else "#1a1a1a"
        axes.text(j, i, f"{count}\n{shares[i, j]:.0%}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(LABELS)), LABELS)
    axes.set_yticks(range(len(LABELS)), LABELS)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10, parse_math=False)  # a file name may hold a $
    figure.colorbar(image, ax=axes, label="share of the true label's rows")
    figure.savefig(path)


_SHOWN = {
    "macro_f1": "macro-F1", "accuracy": "accuracy", "weighted_f1": "weighted F1", "mcc": "MCC",
    "auroc": "AUROC", "log_loss": "log loss", "brier": "Brier", "ece": "ECE",
}  # fmt: skip


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
    """What the labels allow, what the temperature does, and when the model abstains."""
    lines = []
    if ceiling := result["noise_ceiling"]:
        lines.append(
            f"noise ceiling: {ceiling['kept']:.3f} accuracy on the rows that were kept, "
            f"{ceiling['rows_in']:.3f} on all that were read"
        )
    scaled, rule = result["calibration"], result["abstention"]
    lines.append(
        f"temperature {scaled['temperature']:.3f}: ECE of these rows "
        f"{_figure(scaled['ece_before'])} without it, {_figure(scaled['ece_after'])} with it"
    )
    if rule["threshold"] is None:
        lines.append(f"abstains never: {rule['reason']}")
    else:
        lines.append(
            f"abstains below {rule['threshold']:.3f}: answers {rule['coverage']:.1%} of these rows "
            f"with accuracy {_figure(rule['accuracy'])} (wanted {rule['wanted_accuracy']:g})"
        )
    return lines


def label_table(result: dict[str, Any]) -> Table:
    """Precision, recall, F1 and rows of each label, for the model."""
    table = Table(title="model, by label")
    for name in ("label", "precision", "recall", "F1", "AUROC", "rows"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for label, found in result["labels"].items():
        figures = [_figure(found.get(name)) for name in ("precision", "recall", "f1", "auroc")]
        table.add_row(label, *figures, str(found["support"]))
    return table
