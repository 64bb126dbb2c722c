"""Non-inferiority by hand-computed cases: few rows, equal answers, labels without rows."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from finsent.evaluation.compare import compare
from finsent.evaluation.metrics import Answers
from finsent.evaluation.noninferiority import Allowance, judge, macro_f1_difference, paired_bound
from finsent.judgments import Judgment

Ids = npt.NDArray[np.int64]

Z2 = 1.6448536269514722**2
RULES = Allowance(0.06, 100, ("publish.margin", "publish.min_rows"))


def answers(truth: Ids, predicted: Ids) -> Answers:
    return Answers(truth, np.eye(3)[predicted] * 0.7 + 0.1)


def wrong_at(truth: Ids, *places: int) -> Answers:
    """Right but at these places."""
    predicted = truth.copy()
    predicted[list(places)] = (truth[list(places)] + 1) % 3
    return answers(truth, predicted)


def even(rows: int) -> Ids:
    return np.arange(rows, dtype=np.int64) % 3


def judged(a: Answers, b: Answers, rules: Allowance = RULES) -> Judgment:
    comparison = compare(a, b, 200, 0)
    return judge(a, b, comparison.worse, rules, 1000, 0)


# --- the bound of accuracy ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "rows", "bound"),
    [
        (0, 0, 3, -Z2 / (3 + Z2)),  # -0.47: three equal rows prove next to nothing
        (0, 0, 100, -Z2 / (100 + Z2)),
        (0, 0, 2000, -Z2 / (2000 + Z2)),
        (3, 0, 3, -1.0),
        (0, 3, 3, (3 - Z2) / (3 + Z2)),
        (0, 100, 100, (100 - Z2) / (100 + Z2)),
        (0, 0, 0, -1.0),
        (28, 25, 618, -0.0247),  # PropCIs 0.3: scoreci.mp(25, 28, 618, 0.90)
    ],
)
def test_bound_of_accuracy(only_a: int, only_b: int, rows: int, bound: float) -> None:
    assert paired_bound(only_a, only_b, rows) == pytest.approx(bound, abs=5e-5)


@given(st.data())
def test_bound_solves_the_score_equation(data: st.DataObject) -> None:
    """The chance under the supposed difference is found here by maximizing the likelihood."""
    rows = data.draw(st.integers(2, 3000))
    only_a = data.draw(st.integers(0, rows - 1))
    only_b = data.draw(st.integers(0, rows - only_a))
    bound = paired_bound(only_a, only_b, rows)
    assert -1 < bound < (only_b - only_a) / rows

    def loss(chance_a: float) -> float:
        chances = (chance_a, chance_a + bound, 1 - 2 * chance_a - bound)
        counts = (only_a, only_b, rows - only_a - only_b)
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, chances, strict=True))

    low, high = max(0.0, -bound), (1 - bound) / 2
    chance = minimize_scalar(loss, bounds=(low, high), options={"xatol": 1e-12}).x
    variance = rows * (2 * chance + bound - bound**2)
    assert (only_b - only_a - rows * bound) ** 2 == pytest.approx(Z2 * variance, rel=2e-3)


# --- the bound of macro-F1 ------------------------------------------------------------------------


def test_equal_answers_do_not_prove_equal_models() -> None:
    """A plain bootstrap's interval has no width here."""
    bounds = []
    for rows in (3, 60, 600, 6000):
        same = wrong_at(even(rows))
        difference = macro_f1_difference(same, same, 2000, 0)
        assert difference.value == 0
        bounds.append(difference.bound)
    assert bounds[0] < -0.4
    assert bounds == sorted(bounds)
    assert -0.001 < bounds[-1] < 0


def test_a_label_with_few_rows_widens_the_interval() -> None:
    many, few = even(300), np.r_[np.zeros(3), np.ones(150), np.full(147, 2)].astype(np.int64)
    wide, narrow = (
        macro_f1_difference(wrong_at(t), wrong_at(t), 2000, 0).bound for t in (few, many)
    )
    assert wide < 3 * narrow < 0


def test_value_is_the_difference_of_macro_f1() -> None:
    truth = even(300)
    a, b = wrong_at(truth, *range(40)), wrong_at(truth, *range(30, 50))
    difference = macro_f1_difference(a, b, 1000, 0)
    assert difference.value == pytest.approx(b.measure().macro_f1 - a.measure().macro_f1)
    assert 0 < difference.bound < difference.value
    assert difference == macro_f1_difference(a, b, 1000, 0)  # the same seed


def test_macro_f1_is_over_the_labels_that_the_rows_have() -> None:
    """Counting the absent label's F1 of 0 on both sides would make each difference smaller."""
    truth = np.arange(200, dtype=np.int64) % 2
    a, b = wrong_at(truth), wrong_at(truth, *range(0, 40, 2))  # 20 of 100 rows of label 0
    difference = macro_f1_difference(a, b, 200, 0)
    # F1: 2*80/(100+80) of label 0; 2*100/(100+120) of label 1
    assert difference.value == pytest.approx((160 / 180 + 200 / 220) / 2 - 1)


# --- the judgment --------------------------------------------------------------------------------


def test_three_rows_cannot_tell() -> None:
    truth = even(3)
    for b in (wrong_at(truth), wrong_at(truth, 0)):
        judgment = judged(wrong_at(truth), b)
        assert judgment.outcome == "cannot tell"
        assert (
            "3 rows" in judgment.reason and "100 are needed (publish.min_rows)" in judgment.reason
        )


def test_minimum_of_rows_is_exact() -> None:
    judgment = {n: judged(wrong_at(even(n)), wrong_at(even(n))).outcome for n in (99, 100)}
    assert judgment == {99: "cannot tell", 100: "not inferior"}


def test_all_newly_wrong_is_inferior_whatever_the_rows() -> None:
    for rows in (6, 300):
        truth = even(rows)
        judgment = judged(wrong_at(truth), wrong_at(truth, *range(rows)))
        assert judgment.outcome == "inferior"
        assert "worse on" in judgment.reason and "McNemar" in judgment.reason


def test_small_loss_that_is_shown_is_inferior_within_the_margin() -> None:
    truth = even(3000)
    judgment = judged(wrong_at(truth), wrong_at(truth, *range(30)))  # 1 point of 6 allowed
    assert judgment.outcome == "inferior"


def test_equal_answers_and_better_ones_are_not_inferior() -> None:
    truth = even(220)
    champion = wrong_at(truth, *range(30))
    assert judged(champion, champion).outcome == "not inferior"
    better = judged(champion, wrong_at(truth))
    assert better.outcome == "not inferior"
    assert better.accuracy is not None and better.accuracy.bound > 0


def test_one_row_more_or_less_moves_the_bound_by_little() -> None:
    truth = even(220)
    bounds = []
    for lost in range(5):
        judgment = judged(wrong_at(truth), wrong_at(truth, *range(lost)))
        assert judgment.accuracy is not None
        bounds.append(judgment.accuracy.bound)
        assert judgment.outcome == "not inferior", judgment.reason
    assert all(0.003 < now - after < 0.009 for now, after in pairwise(bounds))


def test_wide_interval_cannot_tell_and_says_how_many_rows_would() -> None:
    truth = even(200)
    a, b = wrong_at(truth, *range(40)), wrong_at(truth, *range(30, 75))  # 30 newly right, 35 wrong
    judgment = judged(a, b)
    assert judgment.outcome == "cannot tell"
    assert "200 rows do not show that no more than 0.06 is lost (publish.margin)" in judgment.reason
    assert "accuracy -0.025 (95 %: at least -0.0" in judgment.reason
    [_, needed] = judgment.reason.rsplit("about ", 1)
    assert 500 < int(needed.split(" ")[0].replace(",", "")) < 2000


def test_loss_beyond_the_margin_promises_no_number_of_rows() -> None:
    truth = even(100)
    a, b = wrong_at(truth, *range(20)), wrong_at(truth, *range(13, 40))
    judgment = judged(a, b)
    assert judgment.outcome == "cannot tell" and "would decide" not in judgment.reason


def test_absent_label_is_said() -> None:
    truth = np.arange(200, dtype=np.int64) % 2 + 1
    judgment = judged(wrong_at(truth), wrong_at(truth))
    assert (judgment.outcome, judgment.absent_labels) == ("not inferior", ["negative"])
    assert judgment.reason.endswith("no row is negative: not judged on this label")


def test_model_as_bad_as_the_margin_seldom_passes_and_an_equal_one_mostly() -> None:
    passed = {0.0: 0, 0.06: 0}
    for seed in range(120):
        random = np.random.default_rng(seed)
        truth = random.integers(0, 3, 480)
        errors = random.random(480)
        a = np.where(errors < 0.15, (truth + 1) % 3, truth)
        for loss in passed:
            missed = (errors > 0.05) & (errors < 0.2 + loss)
            b = np.where((errors < 0.1) | (missed & (errors > 0.15)), (truth + 1) % 3, truth)
            outcome = judge(answers(truth, a), answers(truth, b), None, RULES, 100, seed).outcome
            passed[loss] += outcome == "not inferior"
    assert passed[0.06] / 120 <= 0.1
    assert passed[0.0] / 120 >= 0.85
