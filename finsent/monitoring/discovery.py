"""False discovery over all signals and sources, by e-BH.

Each signal has a wealth whose peak P satisfies P(peak >= y) <= 1/y without drift. A peak is no
e-value, since the best moment was chosen afterwards, and the signals' wealths have different
filtrations. An adjuster turns the peak into an e-value that is valid at every moment and for every
combination of signals (Dawid et al. 2011, "Insuring against loss of evidence in game-theoretic
probability", arXiv:1005.1811; Choi & Ramdas 2024, "Combining evidence across filtrations using
adjusters", arXiv:2402.09698). The adjuster used here is a step function: it keeps 95 % of the
peak's strength for the first rejection, and uses the other part for several rejections at once.

e-BH rejects the r signals with the largest e-values, for the largest r with e >= m / (alpha * r).
The false discovery rate is at most alpha under every dependence of the signals (Wang & Ramdas 2022,
"False discovery rate control with e-values", arXiv:2009.02824). Without any drift, the probability
of an alarm is therefore at most alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finsent.monitoring.ranks import Floats

FIRST_WEIGHT = 0.95
LEVEL_RATIO = 4
MAIN_SHARE = 0.7  # of the error budget, for the label mix

Bools = npt.NDArray[np.bool_]


def levels(signals: int, alpha: float) -> tuple[Floats, Floats]:
    """Return the peaks at which the adjuster rises, and the e-value that each of them adds.

    Each step adds `part * level` with parts that sum to 1, so the mean of the adjusted peak is
    at most 1.
    """
    counts = [LEVEL_RATIO**power for power in range(1, signals) if LEVEL_RATIO**power <= signals]
    first_weight = FIRST_WEIGHT if counts else 1.0
    parts = np.array([first_weight, *[(1 - first_weight) / max(len(counts), 1)] * len(counts)])
    added = signals / (alpha * np.array([1, *counts]))
    return np.asarray(added / parts), np.asarray(added)


def weights(names: Sequence[str], main: str) -> Floats:
    """Return weights of signals with mean 1: signals with the main name share MAIN_SHARE of it."""
    is_main = np.array([name == main for name in names])
    size, mains = len(names), int(is_main.sum())
    if mains in (0, size):
        return np.ones(size)
    return np.where(is_main, MAIN_SHARE * size / mains, (1 - MAIN_SHARE) * size / (size - mains))


def rejected(peaks: Floats, signal_weights: Floats, alpha: float) -> Bools:
    """Return which signals drifted.

    Args:
        peaks: of the wealth, shape (..., signals).
        signal_weights: with mean 1. A weighted e-value is valid for e-BH as the e-values are.
        alpha: bound of the false discovery rate.
    """
    return e_bh(adjusted(peaks * signal_weights, peaks.shape[-1], alpha), alpha)


def adjusted(peaks: Floats, signals: int, alpha: float) -> Floats:
    """Return e-values of the peaks of wealth, in the shape of the peaks."""
    steps, added = levels(signals, alpha)
    return np.asarray(((peaks[..., None] >= steps) * added).sum(-1))


def e_bh(e_values: Floats, alpha: float) -> Bools:
    """Return which hypotheses are rejected, as booleans, along the last axis."""
    size = e_values.shape[-1]
    ordered = -np.sort(-e_values, axis=-1)
    counts = np.arange(1, size + 1)
    is_enough = ordered * counts >= size / alpha * (1 - 1e-12)
    count = np.where(is_enough, counts, 0).max(-1, keepdims=True)
    threshold = size / (alpha * np.maximum(count, 1)) * (1 - 1e-12)
    return np.asarray((count > 0) & (e_values >= threshold))
