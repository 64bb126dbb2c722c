"""Metrics of training, for tests."""

from __future__ import annotations

from typing import Any

from finsent.training.metrics import EpochMetrics, StepLine

_METRICS: dict[str, Any] = {
    "macro_f1": 0.5,
    "accuracy": 0.625,
    "validation_loss": 0.8,
    "validation_rows": 8,
    "validation_confusion": [[2, 0, 0], [1, 2, 0], [0, 2, 1]],
    "learning_rate": 1e-4,
    "train_loss": 0.9,
    "train_rows": 100,
    "rows_per_second": 30.0,
    "tokens_per_second": 900.0,
    "padding_share": 0.047,
    "began": 1e9,
    "epoch_seconds": 60.0,
}


def epoch_metrics(epoch: int, **metrics: Any) -> EpochMetrics:
    """Return the metrics of an epoch, counted from 1, with plausible defaults."""
    return EpochMetrics(**{**_METRICS, "epoch": epoch, **metrics})


def step_line(step: int, loss: float) -> StepLine:
    """Return the line of a step in the first epoch."""
    return StepLine(
        step=step,
        epoch=1,
        loss=loss,
        learning_rate=1e-3,
        rows_per_second=10.0,
        padding_share=0.1,
        workers=1,
    )
