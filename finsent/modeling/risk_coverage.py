"""A point of the risk-coverage curve, as records of calibrations and evaluations store it."""

from __future__ import annotations

from finsent.records import Record


class CurvePoint(Record):
    """Coverage and accuracy at one threshold of the risk-coverage curve."""

    threshold: float
    coverage: float
    accuracy: float
