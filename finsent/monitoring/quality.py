"""Accuracy and macro-F1 without labels, with few labels, and a certificate.

- Without labels: under label shift, the model's answers to texts of a true label do not change.
  Only the frequencies of the labels change. The confusion counts of labeled reference rows and the
  stream's predicted labels then give the new label mix (black-box shift estimation: Lipton, Wang &
  Smola 2018, arXiv:1802.03916), and with it accuracy and F1. Sources have confusion counts of their
  own, so a change of the share of sources is covered as well. Draws of the Bayesian bootstrap
  (Rubin 1981, doi:10.1214/aos/1176345338) of all counts give the interval.
- The mean confidence is the usual estimate. It is wrong under label shift.
- With labels of a random share: prediction-powered inference with a tuned weight (Angelopoulos,
  Duchi & Zrnic 2023, "PPI++", arXiv:2311.01453). Feedback of users is not a random share: people
  correct errors. Never pass such labels.
- Certificate: a lower bound of accuracy that holds at all moments together (Robbins 1970; the
  mixture of `paired` with two cells).

No estimate without labels covers concept shift: if the same texts get other true labels, all inputs
look as before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finsent.errors import InputError
from finsent.monitoring.ranks import Floats, Ints
from finsent.monitoring.tolerance import share_bounds

LEVEL = 0.95
_BOOTSTRAP_PRIOR = 0.15  # rows per cell: more would pull small sources to equal shares
_CERTIFICATE_PRIOR = 0.5  # after Jeffreys


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """Estimated figures of a stream without labels."""

    accuracy: Interval
    macro_f1: Interval


def estimate_quality(confusion: Ints, predicted: Ints, resamples: int, seed: int) -> Quality:
    """Estimate accuracy and macro-F1 of a stream under a shift of labels or sources.

    Args:
        confusion: labeled reference rows, shape (sources, true labels, predicted labels).
        predicted: rows of the stream, shape (sources, predicted labels).
        resamples: draws of the bootstrap.
        seed: of the draws.

    Raises:
        InputError: a source of the stream lacks reference rows of a label.
    """
    is_used = predicted.sum(1) > 0
    if not is_used.any():
        raise InputError("predicted=0 rows: nothing to estimate. Give rows of the stream.")
    confusion, predicted = confusion[is_used], predicted[is_used]
    if (confusion.sum(2) == 0).any():
        raise InputError(
            "confusion: a source has no reference rows of a label. Add labeled rows, or merge it."
        )
    random = np.random.default_rng(seed)
    recalls = _shares(random, confusion, resamples)
    answers = _shares(random, predicted, resamples)
    parts = predicted.sum(1) / predicted.sum()
    accuracy, macro_f1 = _figures(recalls, answers, parts)
    point_recalls = confusion / confusion.sum(2, keepdims=True)
    point_answers = predicted / predicted.sum(1, keepdims=True)
    values = _figures(point_recalls[None], point_answers[None], parts)
    return Quality(
        _interval(float(values[0][0]), accuracy), _interval(float(values[1][0]), macro_f1)
    )


def _shares(random: np.random.Generator, counts: Ints, resamples: int) -> Floats:
    """Draw shares of the last axis, shape (resamples, ...)."""
    drawn = random.standard_gamma(counts + _BOOTSTRAP_PRIOR, (resamples, *counts.shape))
    return np.asarray(drawn / drawn.sum(-1, keepdims=True))


def label_mix(recalls: Floats, answers: Floats) -> Floats:
    """Return the shares of true labels that explain the shares of predicted labels.

    Args:
        recalls: shares of predicted labels by true label, shape (..., true, predicted).
        answers: shares of predicted labels, shape (..., predicted).
    """
    inverse = np.linalg.pinv(recalls.swapaxes(-1, -2))
    mix = np.clip((inverse @ answers[..., None])[..., 0], 0, None)
    return np.asarray(mix / mix.sum(-1, keepdims=True))


def _figures(recalls: Floats, answers: Floats, parts: Floats) -> tuple[Floats, Floats]:
    """Return accuracy and macro-F1, shape (resamples,), from shares by source."""
    mix = label_mix(recalls, answers)
    joint = (parts[:, None, None] * mix[..., None] * recalls).sum(1)  # (resamples, true, predicted)
    hits = np.diagonal(joint, axis1=1, axis2=2)
    f1 = 2 * hits / np.maximum(joint.sum(1) + joint.sum(2), 1e-12)
    return hits.sum(-1), f1.mean(-1)


def _interval(value: float, draws: Floats) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def powered_accuracy(confidences: Floats, labeled_confidences: Floats, is_right: Ints) -> Interval:
    """Estimate accuracy by all confidences and the labels of a random share.

    If all labeled answers are right, or all are wrong, the interval is that of the labels alone
    (Clopper & Pearson 1934).

    Args:
        confidences: of all rows without labels.
        labeled_confidences: of the rows with labels, which must be a random share.
        is_right: 1 for each row with a label whose answer is right.
    """
    from scipy.stats import norm  # 0.8 s; pages without feedback do not need it

    labels, rows = len(is_right), len(confidences)
    if labels < 2 or rows < 2:
        raise InputError(f"labels={labels}: at least 2 labels and 2 rows are needed. Add labels.")
    spread = float(np.var(np.concatenate([confidences, labeled_confidences]), ddof=1))
    covariance = float(np.cov(is_right, labeled_confidences)[0, 1])
    weight = covariance / (spread * (1 + labels / rows)) if spread > 0 else 0.0
    right = int(is_right.sum())
    if right in (0, labels):  # the spread of equal labels is 0, which does not mean certainty
        low, high = share_bounds(np.array([right, labels - right]), 1 - LEVEL)
        return Interval(right / labels, float(low[0]), float(high[0]))
    residuals = is_right - weight * labeled_confidences
    value = float(np.clip(weight * confidences.mean() + residuals.mean(), 0.0, 1.0))
    variance = residuals.var(ddof=1) / labels + weight**2 * confidences.var(ddof=1) / rows
    half = float(norm.ppf((1 + LEVEL) / 2) * math.sqrt(variance))
    return Interval(value, max(value - half, 0.0), min(value + half, 1.0))


def certified_accuracy(right: int, labels: int, alpha: float = 1 - LEVEL) -> float:
    """Return an accuracy that is exceeded with probability 1 - alpha, at all moments together.

    Args:
        right: number of labels that the answers matched, since the certificate began.
        labels: number of labels of a random share.
        alpha: bound of the probability that the certificate is ever wrong.
    """
    from scipy.optimize import brentq  # 0.4 s; as above

    if not right:
        return 0.0
    wrong = labels - right
    mixture = (
        math.lgamma(right + _CERTIFICATE_PRIOR)
        + math.lgamma(wrong + _CERTIFICATE_PRIOR)
        - math.lgamma(labels + 2 * _CERTIFICATE_PRIOR)
        - 2 * math.lgamma(_CERTIFICATE_PRIOR)
    )

    def excess(accuracy: float) -> float:
        likelihood = right * math.log(accuracy) + (wrong * math.log1p(-accuracy) if wrong else 0.0)
        return mixture - likelihood - math.log(1 / alpha)

    return float(brentq(excess, 1e-300, right / labels, xtol=1e-12))
