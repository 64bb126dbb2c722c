"""Estimates of quality without labels and with few labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finsent.errors import InputError
from finsent.monitoring.quality import (
    certified_accuracy,
    estimate_quality,
    label_mix,
    powered_accuracy,
)

CONFUSION = np.array([[[80, 15, 5], [10, 180, 10], [5, 15, 80]]])


def test_the_label_mix_explains_the_answers() -> None:
    recalls = CONFUSION[0] / CONFUSION[0].sum(1, keepdims=True)
    mix = np.array([0.6, 0.3, 0.1])
    assert label_mix(recalls, mix @ recalls) == pytest.approx(mix)


def test_accuracy_under_a_label_shift_by_hand() -> None:
    """Recalls 0.8, 0.9, 0.8 and a mix of 0.6, 0.3, 0.1: accuracy 0.83."""
    recalls = CONFUSION[0] / CONFUSION[0].sum(1, keepdims=True)
    predicted = np.round(10_000 * np.array([0.6, 0.3, 0.1]) @ recalls).astype(int)
    quality = estimate_quality(CONFUSION, predicted[None], 500, 0)
    assert quality.accuracy.value == pytest.approx(0.83, abs=1e-3)
    assert quality.accuracy.low < 0.83 < quality.accuracy.high
    hits, answers = np.array([0.48, 0.27, 0.08]), np.array([0.6, 0.3, 0.1]) @ recalls
    f1 = 2 * hits / (answers + np.array([0.6, 0.3, 0.1]))
    assert quality.macro_f1.value == pytest.approx(f1.mean(), abs=1e-3)


def test_sources_have_recalls_of_their_own() -> None:
    other = np.array([[50, 25, 25], [25, 50, 25], [25, 25, 50]])
    confusion = np.stack([CONFUSION[0], other])
    mix = np.array([0.3, 0.4, 0.3])
    answers = [mix @ (counts / counts.sum(1, keepdims=True)) for counts in confusion]
    predicted = np.round(np.array([[2_500], [7_500]]) * np.array(answers)).astype(int)
    quality = estimate_quality(confusion, predicted, 200, 0)
    assert quality.accuracy.value == pytest.approx(0.25 * 0.84 + 0.75 * 0.5, abs=1e-3)


def test_a_label_without_reference_rows_is_refused() -> None:
    confusion = CONFUSION.copy()
    confusion[0, 2] = 0
    with pytest.raises(InputError, match="confusion: a source has no reference rows"):
        estimate_quality(confusion, np.array([[5, 5, 5]]), 10, 0)
    with pytest.raises(InputError, match="predicted=0 rows"):
        estimate_quality(CONFUSION, np.zeros((1, 3), int), 10, 0)


def test_confidences_without_information_change_nothing() -> None:
    right = np.array([1, 0, 1, 1] * 25)
    interval = powered_accuracy(np.full(1_000, 0.8), np.full(100, 0.8), right)
    half = 1.959964 * math.sqrt(right.var(ddof=1) / 100)
    assert interval.value == pytest.approx(0.75)
    assert interval.high - interval.value == pytest.approx(half, rel=1e-5)


def test_informative_confidences_narrow_the_interval_and_correct_the_mean() -> None:
    random = np.random.default_rng(0)
    truth = random.beta(4, 1, 20_000)
    right = (random.random(300) < truth[:300]).astype(int)
    overconfident = np.sqrt(truth)
    interval = powered_accuracy(overconfident[300:], overconfident[:300], right)
    assert interval.low < 0.8 < interval.high
    assert interval.high - interval.low < 2 * 1.96 * right.std() / math.sqrt(300)
    with pytest.raises(InputError, match="labels=1"):
        powered_accuracy(truth, truth[:1], right[:1])


@pytest.mark.parametrize("answer", [0, 1])
def test_equal_labels_are_no_certainty(answer: int) -> None:
    """10 of 10 labels right: the exact bound solves p^10 = 2.5 % / 2 cells."""
    random = np.random.default_rng(0)
    interval = powered_accuracy(random.random(500), random.random(10), np.full(10, answer))
    bound = 0.0125**0.1
    low, high = (bound, 1.0) if answer else (0.0, 1 - bound)
    assert (interval.value, interval.low, interval.high) == pytest.approx((answer, low, high))


def test_a_certificate_by_hand() -> None:
    """All of 100 labels right: the bound solves a^100 = mixture * alpha."""
    mixture = math.exp(math.lgamma(100.5) - math.lgamma(101) - math.lgamma(0.5))
    assert certified_accuracy(100, 100) == pytest.approx((mixture * 0.05) ** 0.01)
    assert certified_accuracy(0, 5) == 0
    assert certified_accuracy(1, 1) < 0.05
    assert certified_accuracy(850, 1_000) < certified_accuracy(8_500, 10_000) < 0.85


def test_a_certificate_is_right_at_all_moments() -> None:
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        right = np.cumsum(random.random(400) < 0.85)
        wrong += any(certified_accuracy(int(right[n - 1]), n) > 0.85 for n in range(20, 401, 20))
    assert wrong <= 5
