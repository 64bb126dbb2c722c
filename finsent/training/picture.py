"""The course of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finsent.files import staged_file


def training_picture(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Loss and macro-F1 by step as PNG.

    Args:
        lines: of `metrics.jsonl`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    figure = Figure(figsize=(7.2, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(_of(steps, "step"), _of(steps, "loss"), color="#9db7d5", label="training, by steps")
    ends = _of(epochs, "step")
    for key, color, label in (
        ("train_loss", "#1f5a99", "training, by epochs"),
        ("validation_loss", "#c0392b", "validation"),
    ):
        upper.plot(ends, _of(epochs, key), "o-", color=color, label=label)
    upper.set_ylabel("loss")
    upper.set_ylim(bottom=0)
    upper.legend(fontsize=8)
    upper.set_title(title, fontsize=10, parse_math=False)
    lower.plot(ends, _of(epochs, "macro_f1"), "o-", color="#c0392b", label="macro-F1, validation")
    for end, value in zip(ends, _of(epochs, "macro_f1"), strict=True):
        lower.annotate(
            f"{value:.3f}",
            (end, value),
            (0, -12),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    lower.set_ylabel("macro-F1")
    lower.set_ylim(0, 1)
    lower.set_xlabel("step")
    rate = lower.twinx()
    rate.plot(_of(steps, "step"), _of(steps, "learning_rate"), color="#bbbbbb", linewidth=1)
    rate.set_ylabel("learning rate", color="#888888")
    rate.tick_params(axis="y", colors="#888888")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
    with staged_file(path) as staged:
        figure.savefig(staged, format="png")


def _of(lines: list[dict[str, Any]], key: str) -> list[float]:
    return [line[key] for line in lines]
