"""Metrics from a confusion matrix, so that counts from several workers simply add up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from finsent.labels import LABELS

Counts = npt.NDArray[np.int64]


def confusion(truth: Counts, predicted: Counts) -> Counts:
    """Counts by (true id, predicted id), shape (labels, labels)."""
    size = len(LABELS)
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def scores(matrix: Counts) -> dict[str, Any]:
    """Accuracy, macro-F1 and the figures of each label.

    A label that is neither present nor predicted has an F1 of 0 and counts in the mean, as in
    scikit-learn's `f1_score(labels=..., average="macro", zero_division=0)`.

    Args:
        matrix: from `confusion`.
    """
    hits = matrix.diagonal().astype(float)
    support, predicted = matrix.sum(1), matrix.sum(0)
    precision = _ratio(hits, predicted)
    recall = _ratio(hits, support)
    f1 = _ratio(2 * hits, support + predicted)
    return {
        "accuracy": float(hits.sum() / max(matrix.sum(), 1)),
        "macro_f1": float(f1.mean()),
        "rows": int(matrix.sum()),
        "labels": {
            label: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, label in enumerate(LABELS)
        },
        "confusion": matrix.tolist(),
    }


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    out = np.zeros(len(LABELS))
    np.divide(part, whole, out=out, where=whole > 0)
    return out
