"""Figures from probabilities equal scikit-learn's, on resamples, too; intervals keep their word."""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sk

from finsent.evaluation.bootstrap import intervals, percentiles, resample_counts
from finsent.evaluation.metrics import BINS, Answers, bin_of
from finsent.labels import LABELS
from finsent.metrics_record import HEADLINE, Scores, StoredMetrics

pytestmark = pytest.mark.cost(5, "simulates many samples")

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def simulated(rows: int, seed: int, shares: tuple[float, ...] = (0.2, 0.5, 0.3)) -> Answers:
    """A decent, overconfident model on uneven labels."""
    random = np.random.default_rng(seed)
    truth = random.choice(3, rows, p=shares)
    logits = random.normal(0, 1.5, (rows, 3))
    logits[np.arange(rows), truth] += 2
    odds = np.exp(logits)
    return Answers(truth, odds / odds.sum(1, keepdims=True))


def by_hand(truth: Ids, probabilities: Floats) -> dict[str, float]:
    """By scikit-learn, and ECE as its definition reads."""
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    ece = 0.0
    for i in range(BINS):
        inside = (confidence > i / BINS) & (confidence <= (i + 1) / BINS)
        if inside.any():
            gap = (predicted[inside] == truth[inside]).mean() - confidence[inside].mean()
            ece += inside.mean() * abs(gap)
    labels = [0, 1, 2]
    f1 = {
        kind: sk.f1_score(truth, predicted, average=kind, labels=labels, zero_division=0)
        for kind in ("macro", "weighted")
    }
    return {
        "accuracy": sk.accuracy_score(truth, predicted),
        "macro_f1": f1["macro"],
        "weighted_f1": f1["weighted"],
        "mcc": sk.matthews_corrcoef(truth, predicted),
        "auroc": sk.roc_auc_score(truth, probabilities, multi_class="ovr", labels=labels),
        "log_loss": sk.log_loss(truth, probabilities, labels=labels),
        "brier": sk.brier_score_loss(truth, probabilities, labels=labels, scale_by_half=False),
        "ece": ece,
    }


@pytest.mark.parametrize("digits", [17, 1], ids=["no ties", "many ties"])
def test_figures_are_those_of_scikit_learn(digits: int) -> None:
    population = simulated(400, 1)
    probabilities = np.round(population.probabilities, digits) + 0.01  # no 0, no log of it
    probabilities /= probabilities.sum(1, keepdims=True)
    figures = Answers(population.truth, probabilities).measure()
    expected = by_hand(population.truth, probabilities)
    assert {name: getattr(figures, name) for name in HEADLINE} == pytest.approx(expected)
    for i, label in enumerate(LABELS):
        auroc = sk.roc_auc_score(population.truth == i, probabilities[:, i])
        assert figures.labels[label].auroc == pytest.approx(auroc)
    assert Scores.model_validate_json(figures.model_dump_json()) == figures


def test_weights_are_as_good_as_repeated_rows() -> None:
    answers = simulated(150, 2)
    [counts] = resample_counts(150, 10, seed=3)
    figures = answers.figures(counts)
    for i, times in enumerate(counts.astype(int)):
        repeated = np.repeat(np.arange(150), times)
        expected = by_hand(answers.truth[repeated], answers.probabilities[repeated])
        assert {name: figures[name][i] for name in HEADLINE} == pytest.approx(expected)


def test_auroc_of_a_label_without_rows_is_left_out() -> None:
    answers = simulated(80, 4, shares=(0.5, 0.5, 0.0))
    figures = answers.measure()
    negative, neutral, positive = (figures.labels[label].auroc for label in LABELS)
    assert positive is None and negative is not None and neutral is not None
    assert figures.auroc == pytest.approx((negative + neutral) / 2)


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_rows_warn_of_nothing(rows: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = Answers(np.zeros(rows, np.int64), np.full((rows, 3), 1 / 3))
        figures = answers.measure()
        bounds = intervals(answers, 100, seed=0)
    assert figures.auroc is None
    assert bounds["auroc"] is None
    for name, value in {"brier": 2 / 3, "ece": 2 / 3}.items():  # sure to a third, and right
        assert bounds[name] == (pytest.approx([value, value]) if rows else None)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [(0.0, 0), (1 / 15, 0), (0.0667, 1), (1 / 3, 4), (0.3334, 5), (0.99, 14), (1.0, 14)],
)
def test_bins_hold_their_upper_end(confidence: float, expected: int) -> None:
    assert bin_of(np.array([confidence])).tolist() == [expected]


def test_reliability_adds_up_to_ece_and_accuracy() -> None:
    answers = simulated(500, 5)
    figures, bins = answers.measure(), answers.reliability()
    assert [b.low for b in bins] == pytest.approx([i / 15 for i in range(15)])
    full = [
        (b, b.accuracy, b.confidence)
        for b in bins
        if b.accuracy is not None and b.confidence is not None
    ]
    assert sum(b.rows for b, _, _ in full) == 500
    ece = sum(b.rows / 500 * abs(accuracy - confidence) for b, accuracy, confidence in full)
    assert ece == pytest.approx(figures.ece)
    assert sum(b.rows * accuracy for b, accuracy, _ in full) / 500 == pytest.approx(
        figures.accuracy
    )
    assert all(b.low < confidence <= b.high for b, _, confidence in full)
    assert all(b.accuracy is b.confidence is None for b in bins if not b.rows)


def test_hopeless_certainty_costs_a_finite_log_loss() -> None:
    figures = Answers(np.array([0]), np.array([[0.0, 1.0, 0.0]])).measure()
    assert (figures.log_loss, figures.brier, figures.ece) == pytest.approx(
        (-math.log(np.finfo(np.float32).eps), 2.0, 1.0)
    )


# --- intervals ------------------------------------------------------------------------------------


def test_resamples_draw_as_many_rows_as_there_are() -> None:
    blocks = [*resample_counts(700, 2000, seed=1)]
    assert len(blocks) > 1  # more than is held at once
    counts = np.concatenate(blocks)
    assert counts.shape == (2000, 700)
    assert (counts.sum(1) == 700).all()
    # Poisson-like: mean 1, variance 1 - 1/n; rows alike.
    assert counts.var(0).mean() == pytest.approx(1, abs=0.02)
    assert abs(counts.mean(0) - 1).max() < 5 / math.sqrt(2000)
    assert np.array_equal(counts, np.concatenate([*resample_counts(700, 2000, seed=1)]))
    assert not np.array_equal(counts, np.concatenate([*resample_counts(700, 2000, seed=2)]))


def test_percentiles_leave_out_what_is_undefined() -> None:
    assert percentiles(np.r_[np.arange(101.0), np.nan]) == pytest.approx([2.5, 97.5])
    assert percentiles(np.full(3, np.nan)) is None


def test_intervals_cover_the_truth_in_95_of_100_samples() -> None:
    """On samples of one population; without resampling, or at another level, this fails."""
    population = simulated(200_000, 6)
    truth = population.measure()
    random = np.random.default_rng(7)
    names = [name for name in HEADLINE if name != "ece"]  # see its own test
    samples, covered = 300, dict.fromkeys(names, 0)
    for seed in range(samples):
        rows = random.integers(0, 200_000, 250)
        sample = Answers(population.truth[rows], population.probabilities[rows])
        bounds = intervals(sample, 200, seed)
        for name in names:
            low, high = bounds[name] or [0, 0]
            covered[name] += low <= getattr(truth, name) <= high
    for name, count in covered.items():
        assert 0.91 <= count / samples <= 0.985, (name, count / samples)


def test_interval_of_ece_makes_up_for_its_bias() -> None:
    """The plain percentile interval would cover the truth in one sample of ten here."""
    population = simulated(200_000, 6)
    sharper = population.probabilities**1.1
    probabilities = sharper / sharper.sum(1, keepdims=True)
    truth = Answers(population.truth, probabilities).measure().ece
    assert truth is not None and 0.02 < truth < 0.06
    random, covered = np.random.default_rng(9), 0
    for seed in range(60):
        rows = random.integers(0, 200_000, 1000)
        answers = Answers(population.truth[rows], probabilities[rows])
        low, high = intervals(answers, 100, seed)["ece"] or [0, 0]
        assert 0 <= low < high < 0.2
        covered += low <= truth <= high
    assert covered / 60 > 0.8


# --- what goes where ------------------------------------------------------------------------------


def test_brief_leaves_out_the_long_lists_only() -> None:
    point = {"threshold": 0.5, "coverage": 1.0, "accuracy": 1.0}
    rule = {"threshold": 0.5, "curve": [point]}
    content = {"accuracy": 1.0, "reliability": [], "mistakes": [], "abstention": rule}
    metrics = StoredMetrics.model_validate(content)
    short = metrics.brief().model_dump(mode="json")
    assert short == {"accuracy": 1.0, "abstention": {"threshold": 0.5}}
    assert metrics.model_dump(mode="json") == content
    assert StoredMetrics(macro_f1=0.5).brief() == StoredMetrics(macro_f1=0.5)
