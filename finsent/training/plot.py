"""Plot of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finsent.files import staged_file
from finsent.training.metrics import EpochLine, StepLine
from finsent.training.metrics_log import MetricsLine

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_BLUE, _LIGHT_BLUE, _RED = "#1f5a99", "#9db7d5", "#c0392b"
_LIGHT_GRAY, _GRAY = "#bbbbbb", "#888888"


def plot_training(lines: Sequence[MetricsLine], path: Path, title: str) -> None:
    """Plot loss, macro-F1 and learning rate by step as PNG.

    Args:
        lines: of `metrics.jsonl`.
    """
    # Matplotlib takes 0.5 CPU seconds, and workers that plot nothing import this module.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [line for line in lines if isinstance(line, StepLine)]
    epochs = [line for line in lines if isinstance(line, EpochLine)]
    figure = Figure(figsize=(7.2, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.set_title(title, fontsize=10, parse_math=False)
    _plot_loss(upper, steps, epochs)
    _plot_macro_f1(lower, epochs)
    rate_axes = lower.twinx()
    rates = [step.learning_rate for step in steps]
    rate_axes.plot([step.step for step in steps], rates, color=_LIGHT_GRAY, linewidth=1)
    rate_axes.set_ylabel("learning rate", color=_GRAY)
    rate_axes.tick_params(axis="y", colors=_GRAY)
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
    with staged_file(path) as staged:
        figure.savefig(staged, format="png")


def _plot_loss(axes: Axes, steps: Sequence[StepLine], epochs: Sequence[EpochLine]) -> None:
    losses = [step.loss for step in steps]
    axes.plot([step.step for step in steps], losses, color=_LIGHT_BLUE, label="training, by steps")
    ends = [epoch.step for epoch in epochs]
    train_losses = [epoch.train_loss for epoch in epochs]
    axes.plot(ends, train_losses, "o-", color=_BLUE, label="training, by epochs")
    validation_losses = [epoch.validation_loss for epoch in epochs]
    axes.plot(ends, validation_losses, "o-", color=_RED, label="validation")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


def _plot_macro_f1(axes: Axes, epochs: Sequence[EpochLine]) -> None:
    values = [epoch.macro_f1 for epoch in epochs]
    ends = [epoch.step for epoch in epochs]
    axes.plot(ends, values, "o-", color=_RED, label="macro-F1, validation")
    for end, value in zip(ends, values, strict=True):
        axes.annotate(
            f"{value:.3f}",
            (end, value),
            (0, -12),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_ylabel("macro-F1")
    axes.set_ylim(0, 1)
    axes.set_xlabel("step")
