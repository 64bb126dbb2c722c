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


def score_table(result: dict[str, Any], title: str) -> Table:
    """The model beside its baselines: overall, and F1 by label."""
    table = Table(title=Text(title))  # not markup: a file name may hold brackets
    table.add_column("")
    for name in ("macro-F1", "accuracy", *(f"F1 {label}" for label in LABELS)):
        table.add_column(name, justify="right")
    for name, found in {"model": result, **result.get("baselines", {})}.items():
        figures = [found["macro_f1"], found["accuracy"]]
        figures += [found["labels"][label]["f1"] for label in LABELS]
        table.add_row(name, *(f"{value:.3f}" for value in figures))
    return table


def label_table(result: dict[str, Any]) -> Table:
    """Precision, recall, F1 and rows of each label, for the model."""
    table = Table(title="model, by label")
    for name in ("label", "precision", "recall", "F1", "rows"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for label, found in result["labels"].items():
        figures = [f"{found[name]:.3f}" for name in ("precision", "recall", "f1")]
        table.add_row(label, *figures, str(found["support"]))
    return table
