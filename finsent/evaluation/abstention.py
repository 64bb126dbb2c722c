"""Abstention: the risk-coverage curve, and the confidence threshold for a wanted accuracy.

El-Yaniv & Wiener 2010 (https://www.jmlr.org/papers/v11/el-yaniv10a.html); Geifman & El-Yaniv 2017
(arXiv:1705.08500), here in the empirical form, without their guarantee.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finsent.evaluation.metrics import Floats, Ids
from finsent.modeling.risk_coverage import CurvePoint

Flags = npt.NDArray[np.bool_]

_MAX_POINTS = 100  # of a stored curve


def threshold_for(
    confidence: Floats, right: Flags, wanted: float, *, by_confidence: bool = False
) -> float | None:
    """Return the smallest threshold that reaches an accuracy, which has the largest coverage.

    Rows whose confidence is at least the threshold are answered. The threshold is half-way between
    the last answered row and the next row, so that rounding changes no answer; 0: all are answered.

    Args:
        confidence: probability of the predicted label, shape (rows,).
        right: whether that label is the true one.
        wanted: accuracy among the answered rows, 0 to 1.
        by_confidence: the mean confidence of the answered rows must reach `wanted`, too. On few
            rows, one of many thresholds reaches an accuracy by chance.

    Returns:
        None: no threshold reaches the accuracy.
    """
    ranked, answered, hits = _nested(confidence, right)
    reaches = hits / answered >= wanted
    if by_confidence:
        reaches &= np.cumsum(ranked)[answered - 1] / answered >= wanted
    reached = np.flatnonzero(reaches)
    if not len(reached):
        return None
    last = int(answered[reached[-1]]) - 1
    if last + 1 == len(ranked):
        return 0.0
    return float((ranked[last] + ranked[last + 1]) / 2)


class Selective(NamedTuple):
    """Figures of the rows that a threshold answers; None: undefined."""

    coverage: float | None  # share of rows answered
    accuracy: float | None  # of the answered rows


def selective(confidence: Floats, right: Flags, threshold: float | None) -> Selective:
    """Return coverage and accuracy at a threshold; None: the model never abstains."""
    if threshold is None or not len(confidence):
        return Selective(None, None)
    answered = confidence >= threshold
    accuracy = float(right[answered].mean()) if answered.any() else None
    return Selective(float(answered.mean()), accuracy)


def risk_coverage(confidence: Floats, right: Flags) -> tuple[CurvePoint, ...]:
    """Return accuracy (1 - risk) by coverage, rising: at most 100 points, evenly spaced."""
    ranked, answered, hits = _nested(confidence, right)
    indices = np.unique(
        np.linspace(0, len(answered) - 1, min(_MAX_POINTS, len(answered))).astype(int)
    )
    return tuple(
        CurvePoint(
            threshold=float(ranked[answered[i] - 1]),
            coverage=float(answered[i] / len(ranked)),
            accuracy=float(hits[i] / answered[i]),
        )
        for i in indices
    )


def _nested(confidence: Floats, right: Flags) -> tuple[Floats, Ids, Ids]:
    """Return the confidences, falling, and row and hit counts of the sets that a threshold answers.

    Rows of equal confidence are answered together.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    last = np.append(ranked[1:] < ranked[:-1], True)[: len(ranked)]
    ends = np.flatnonzero(last).astype(np.int64)
    return ranked, ends + 1, np.cumsum(right[order], dtype=np.int64)[ends]
