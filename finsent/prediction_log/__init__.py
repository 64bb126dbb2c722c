"""The prediction log: one row per served text."""

from __future__ import annotations

from finsent.prediction_log.schema import SCHEMA, LoggedPrediction

__all__ = ["SCHEMA", "LoggedPrediction"]
