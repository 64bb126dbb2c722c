"""Typed metrics of a training run, as `metrics.jsonl` and checkpoints store them.

This module imports neither torch nor transformers: processes that show or choose need neither.
"""

from __future__ import annotations

from typing import Literal

from finsent.records import Record

MIN_WEIGHT = 1e-12  # divisor where a step or an epoch has no weight
_MIN_SECONDS = 1e-9


class EpochTotals(Record):
    """Counts of an epoch so far, over all ranks."""

    loss: float = 0.0  # weighted sum over rows
    weight: float = 0.0
    rows: int = 0
    tokens: int = 0  # without padding
    padded: int = 0  # tokens with padding
    seconds: float = 0.0  # of steps, without validation and checkpoints

    def __sub__(self, other: EpochTotals) -> EpochTotals:
        return EpochTotals(
            loss=self.loss - other.loss,
            weight=self.weight - other.weight,
            rows=self.rows - other.rows,
            tokens=self.tokens - other.tokens,
            padded=self.padded - other.padded,
            seconds=self.seconds - other.seconds,
        )

    @property
    def mean_loss(self) -> float:
        """Weighted mean loss over the rows."""
        return self.loss / max(self.weight, MIN_WEIGHT)

    @property
    def padding_share(self) -> float:
        """Share of padding in the computed tokens, 0 to 1."""
        return 1 - self.tokens / max(self.padded, 1)

    @property
    def rows_per_second(self) -> float:
        """Rows per second of steps."""
        return self.rows / max(self.seconds, _MIN_SECONDS)

    @property
    def tokens_per_second(self) -> float:
        """Tokens without padding per second of steps."""
        return self.tokens / max(self.seconds, _MIN_SECONDS)


class EpochMetrics(Record):
    """Metrics of one finished epoch."""

    macro_f1: float
    accuracy: float
    validation_loss: float
    validation_rows: int
    validation_confusion: list[list[int]]  # counts by true and predicted label id
    epoch: int  # counted from 1
    learning_rate: float  # after the last step
    train_loss: float
    train_rows: int
    rows_per_second: float
    tokens_per_second: float
    padding_share: float
    began: float  # Unix time in seconds
    epoch_seconds: float  # with validation


class _Line(Record):
    kind: str
    step: int  # steps since the start of the run


class StepLine(_Line):
    """A line of `metrics.jsonl` about the steps since the line before."""

    kind: Literal["step"] = "step"
    epoch: int  # counted from 1
    loss: float
    learning_rate: float
    rows_per_second: float
    padding_share: float
    workers: int


class EpochLine(EpochMetrics, _Line):
    """A line of `metrics.jsonl` about a finished epoch."""

    kind: Literal["epoch"] = "epoch"

    @classmethod
    def of(cls, metrics: EpochMetrics, step: int) -> EpochLine:
        """Return the line of an epoch that ended after a step of the run."""
        return cls(step=step, **metrics.model_dump())
