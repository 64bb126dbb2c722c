"""Fitted calibrations for domains: parameters, thresholds and folds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax

from finsent.data.config import NearConfig
from finsent.evaluation.abstention import selective, threshold_for
from finsent.evaluation.config import CalibrateConfig
from finsent.evaluation.domain import no_gain, too_few
from finsent.evaluation.domain_fit import bias_loss, fit
from finsent.evaluation.domain_report import gain_lines
from finsent.evaluation.domain_validation import (
    cross_validate,
    fold_ids,
    judge_own_calibration,
    judge_probabilities,
    log_loss_difference,
    wilson_share,
)
from finsent.evaluation.metrics import Answers, Floats, Ids
from finsent.evaluation.training_overlap import near_groups
from finsent.inference.engine import softmax
from finsent.modeling.calibration import Calibration
from finsent.modeling.domain_calibration import (
    UNREACHABLE_THRESHOLD,
    DomainCalibration,
    DomainContent,
)
from finsent.modeling.domain_record import Figure
from finsent.modeling.label_map import ABSENT_LOGIT
from tests.unit.models import domain_content

BIASES = (-0.2, 1.3, -1.1)


def shifted(rows: int, temperature: float, seed: int = 0) -> tuple[Floats, Ids]:
    """Return logits whose true probabilities have a temperature and `BIASES`."""
    random = np.random.default_rng(seed)
    logits = log_softmax(random.normal(0, 3, (rows, 3)), axis=1)
    shares = softmax(logits, temperature, BIASES).astype(float)
    truth = (shares.cumsum(1) < random.random((rows, 1))).sum(1)
    return logits, np.minimum(truth, 2).astype(np.int64)


def each(rows: int) -> Ids:
    """Return groups of one row."""
    return np.arange(rows)


def test_biases_and_temperature_of_a_domain_are_found() -> None:
    logits, truth = shifted(20_000, 1.0)
    fitted = fit(logits, truth, 0.9)
    assert fitted.temperature == pytest.approx(1.0, abs=0.05)
    assert fitted.biases == pytest.approx(BIASES, abs=0.06)
    assert sum(fitted.biases) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_a_temperature_without_a_shift_is_found(temperature: float) -> None:
    random = np.random.default_rng(1)
    logits = log_softmax(random.normal(0, 3, (20_000, 3)), axis=1)
    shares = softmax(logits, temperature).astype(float)
    truth = np.minimum((shares.cumsum(1) < random.random((20_000, 1))).sum(1), 2)
    fitted = fit(logits, truth.astype(np.int64), 0.9)
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    assert fitted.biases == pytest.approx((0, 0, 0), abs=0.06)


def test_the_gradient_is_that_of_the_loss() -> None:
    logits, truth = shifted(50, 1.5)
    for seed in range(3):
        shift = np.random.default_rng(seed).normal(0, 1, 3)
        error = check_grad(
            lambda b: bias_loss(b, logits, truth)[0],
            lambda b: bias_loss(b, logits, truth)[1],
            shift,
        )
        assert error < 1e-4


def test_the_loss_has_the_value_of_a_hand() -> None:
    # One row of equal logits: -ln(1/3); a bias of 1 costs 1/2 by the prior.
    value, _ = bias_loss(np.zeros(3), np.zeros((1, 3)), np.array([1]))
    assert value == pytest.approx(np.log(3))
    value, _ = bias_loss(np.array([0.0, 1.0, 0.0]), np.zeros((1, 3)), np.array([1]))
    assert value == pytest.approx(0.5 - np.log(np.e / (np.e + 2)))


def test_a_label_without_rows_gets_a_finite_bias() -> None:
    logits, truth = shifted(200, 1.0)
    seen = truth != 0
    fitted = fit(logits[seen], truth[seen], 0.9)
    assert -5 < fitted.biases[0] < fitted.biases[1]


def test_rows_of_a_label_that_the_model_never_answers_do_not_matter() -> None:
    logits, truth = shifted(300, 1.0)
    logits[:, 0] = ABSENT_LOGIT / 20
    is_known = truth != 0
    fitted, alone = fit(logits, truth, 0.9), fit(logits[is_known], truth[is_known], 0.9)
    assert fitted.biases == pytest.approx(alone.biases)
    assert fitted.probabilities(logits)[:, 0].max() == 0


def test_where_no_threshold_reaches_the_accuracy_no_row_is_answered() -> None:
    logits, truth = shifted(100, 1.0)
    assert fit(logits, (truth + 1) % 3, 0.999).threshold == UNREACHABLE_THRESHOLD


def test_a_saturated_row_is_not_answered_where_none_is_to_be() -> None:
    content = domain_content(threshold=1.0, threshold_reason="no threshold reaches 0.9")
    both = DomainCalibration.of(content).on(Calibration(threshold=0.5))
    sure = softmax(np.array([[60.0, 0.0, 0.0]]), 1.0)
    assert sure.max() == 1.0 and both.threshold is not None
    assert sure.max() < both.threshold  # in fp32, as NumPy compares it
    assert float(sure.max()) < both.threshold
    truth = np.zeros(1, np.int64)
    assert not judge_probabilities(truth, sure, np.array([UNREACHABLE_THRESHOLD])).answered.any()
    assert selective(Answers(truth, sure).confidence, np.array([True]), both.threshold) == (
        0.0,
        None,
    )
    assert DomainContent(**content.model_dump()).threshold == 1.0  # what is stored, with a reason


def test_a_threshold_by_confidence_needs_more_than_luck() -> None:
    confidence, right = np.array([0.95, 0.9, 0.6, 0.5]), np.array([True] * 4)
    assert threshold_for(confidence, right, 0.9) == 0
    # Mean confidence of the first two: 0.925; of three: 0.817.
    assert threshold_for(confidence, right, 0.9, by_confidence=True) == pytest.approx(0.75)


def test_each_fold_has_its_part_of_each_label() -> None:
    truth = np.array([0] * 20 + [1] * 30 + [2] * 10)
    ids = fold_ids(truth, each(60), 10)
    for label, rows in ((0, 2), (1, 3), (2, 1)):
        assert np.bincount(ids[truth == label], minlength=10).tolist() == [rows] * 10


def test_near_copies_are_in_one_fold() -> None:
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(25), 4))
    ids = fold_ids(np.tile([0, 1, 2, 2], 25), groups, 10)
    folds = [np.unique(ids[groups == group]).tolist() for group in range(25)]
    assert {len(fold) for fold in folds} == {1}
    assert sorted(np.bincount(np.ravel(folds))) == [2] * 5 + [3] * 5


def test_near_copies_are_groups() -> None:
    texts = ["Profit rose to 13.1 million euros in the third quarter, the company said"]
    texts += ["The annual meeting will be held on the fourth of May in Helsinki", "Up"]
    texts += [f"RT @desk: {texts[0]}", f"{texts[0]} today", "Sales fell", "Up"]
    groups = near_groups(pa.chunked_array([texts]), NearConfig())
    assert len(set(groups.tolist())) == 5  # "Up" is too short to be near
    assert groups[0] == groups[3] == groups[4]
    off = near_groups(pa.chunked_array([texts]), NearConfig(enabled=False))
    assert off.tolist() == [*range(7)]


@pytest.mark.parametrize("seed", range(4))
def test_labels_drawn_from_the_model_s_own_probabilities_leave_nothing_to_gain(seed: int) -> None:
    """Without groups, 30 of 40 such draws of 20 texts in ten near copies are a gain."""
    random = np.random.default_rng(seed)
    logits = log_softmax(random.normal(0, 2, (20, 3)), axis=1)
    truth = (np.exp(logits).cumsum(1) < random.random((20, 1))).sum(1)
    truth = np.minimum(truth, 2).astype(np.int64).repeat(10)
    # Retweets hardly change what the model answers.
    near = logits.repeat(10, 0) + random.normal(0, 0.05, (200, 3))
    groups = np.arange(20).repeat(10)
    before = judge_own_calibration(near, truth, None).answers
    after = cross_validate(near, truth, groups, 5, 0.9).answers
    assert no_gain(log_loss_difference(before, after, groups, 100, 0)) is not None


def test_few_texts_in_many_copies_are_too_few() -> None:
    logits, truth = shifted(20, 1.0)
    rows, groups = np.arange(20).repeat(10), np.arange(20).repeat(10)
    reasons = too_few(logits[rows], truth[rows], groups, CalibrateConfig(min_label_rows=15))
    assert reasons[0] == (
        "20 rows (of 200, the others are near copies) are too few, 100 are needed "
        "(calibrate.min_rows)"
    )
    counts = np.bincount(truth, minlength=3)
    assert f"{counts[0]} rows are negative, 15 are needed" in reasons[1]


def test_cross_validation_promises_no_more_than_new_rows_hold() -> None:
    logits, truth = shifted(300, 1.6)
    promised = cross_validate(logits, truth, each(len(truth)), 10, 0.9)
    new_logits, new_truth = shifted(20_000, 1.6, seed=9)
    held = Answers(new_truth, fit(logits, truth, 0.9).probabilities(new_logits)).measure()
    figures = promised.measure(each(300), 200, 0)
    for name in ("accuracy", "macro_f1", "log_loss"):
        figure = getattr(figures, name)
        assert figure.interval[0] < getattr(held, name) < figure.interval[1]
    before = judge_own_calibration(logits, truth, None)
    assert before.measure(each(300), 200, 0).coverage is None
    gain = log_loss_difference(before.answers, promised.answers, each(300), 200, 0)
    assert no_gain(gain) is None


def test_a_calibration_of_what_needs_none_is_no_gain() -> None:
    random = np.random.default_rng(3)
    logits = log_softmax(random.normal(0, 3, (200, 3)), axis=1)
    truth = (np.exp(logits).cumsum(1) < random.random((200, 1))).sum(1)
    truth = np.minimum(truth, 2).astype(np.int64)
    validation = cross_validate(logits, truth, each(len(truth)), 10, 0.9)
    before = judge_own_calibration(logits, truth, None).answers
    gain = log_loss_difference(before, validation.answers, each(200), 200, 0)
    assert "not a clear gain" in str(no_gain(gain))


def test_a_share_has_wilsons_interval() -> None:
    share_figure = wilson_share(18, 20, 20)  # Newcombe 1998's formula, by hand: (0.699, 0.972)
    assert share_figure.value == 0.9
    assert share_figure.interval == pytest.approx((0.699, 0.972), abs=5e-4)
    assert wilson_share(90, 100, 20) == share_figure  # five copies of each tell no more
    assert wilson_share(0, 0, 0) == Figure(value=None, interval=None)


@pytest.mark.parametrize(
    ("coverage", "interval", "doubt"),
    [
        (0.5, (0.8, 0.95), None),
        (0.05, (0.8, 0.95), "answered only 10 of 200 rows"),
        (0.5, (0.7, 0.85), "0.800 (0.700 to 0.850) of the answered rows are right, 0.9 are wanted"),
    ],
)
def test_doubts_about_a_threshold_are_said(
    coverage: float, interval: tuple[float, float], doubt: str | None
) -> None:
    content = domain_content(rows=200)
    answered = Figure(value=0.8, interval=interval)
    after = content.after.replaced(coverage=coverage, answered=answered)
    calibration = DomainCalibration.of(domain_content(rows=200, texts=200, after=after))
    lines = gain_lines(calibration)
    assert lines[:2] == [
        "temperature 2.000, biases negative -0.20, neutral +1.30, positive -1.10",
        "abstains below 0.800, for an accuracy of 0.9",
    ]
    copies = DomainCalibration.of(domain_content(rows=200, texts=20, after=after))
    if coverage == 0.5:  # ten rows, where near copies count as one
        assert "answered only 10 of 20 rows, where near copies" in gain_lines(copies)[2]
    assert ([] if doubt is None else [doubt in lines[2]]) == [True] * len(lines[2:])
