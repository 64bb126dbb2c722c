"""What is used elsewhere: a threshold on a distance, and a test at every look."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency

from finsent.monitoring.ranks import Floats, Ints

JENSEN_SHANNON = (
    0.1  # Evidently's default of categorical columns (docs.evidentlyai.com, "Data drift")
)
CHI_SQUARE = 0.05
WINDOW = 100  # latest rows that the distance compares with the reference
LOOKS_PER_YEAR = 365


def distance_alarms(reference: Ints, labels: Ints, looks: Ints) -> list[bool]:
    """Return for each look whether the distance of the latest window is above the threshold.

    Args:
        reference: counts by label.
        labels: of one stream.
        looks: number of rows before each look.
    """
    shares = reference / reference.sum()
    return [
        bool(jensenshannon(shares, _counts(labels[look - WINDOW : look], shares)) >= JENSEN_SHANNON)
        for look in looks
    ]


def chi_square_alarms(reference: Ints, labels: Ints, looks: Ints) -> list[bool]:
    """Return for each look whether all rows so far differ from the reference, p < 0.05."""
    table = [np.array([reference, _counts(labels[:look], reference)]) for look in looks]
    return [bool(chi2_contingency(counts).pvalue < CHI_SQUARE) for counts in table]


def _counts(labels: Ints, like: Ints | Floats) -> Ints:
    return np.bincount(labels, minlength=len(like))
