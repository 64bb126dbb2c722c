"""Predictions to log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from finsent.prediction_log import LoggedPrediction

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def logged(number: int, *, minutes: float = 0.0) -> LoggedPrediction:
    """Return a prediction that differs from those of other numbers."""
    share = 1 / (3 + number)
    return LoggedPrediction(
        id=f"text-{number}",
        time=NOON + timedelta(minutes=minutes, microseconds=number),
        request_id=f"request-{number // 2}",
        key="desk" if number % 2 else None,
        source=None,
        text=f"Umsätze von {number} fell.",
        text_hmac=None,
        characters=20 + number,
        tokens=7,
        truncated=False,
        label="neutral",
        confidence=1 - share,
        abstained=number % 3 == 0,
        probabilities={"negative": share / 2, "neutral": 1 - share, "positive": share / 2},
        model_version="a1b2c3d4e5f6",
        calibration=None,
        backend="onnxruntime-fp32",
        encoded_seconds=0.001,
        queued_seconds=0.1 + number,
        computed_seconds=0.2,
    )
