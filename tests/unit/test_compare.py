"""Verdicts on simulated models whose difference is known, and the rows behind them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic_core import to_jsonable_python

from finsent.evaluation.compare import (
    compare,
    flipped,
    mcnemar,
    write_comparison,
)
from finsent.evaluation.comparison_record import ComparisonRecord, Difference
from finsent.evaluation.held_out_rows import find_held_out
from finsent.evaluation.metrics import Answers
from finsent.labels import LABELS
from tests.unit.evaluations import comparison

pytestmark = pytest.mark.cost(1.5, "simulates many samples")

Ids = npt.NDArray[np.int64]


def answers(truth: Ids, predicted: Ids, confidence: float = 0.8) -> Answers:
    other_probability = (1 - confidence) / 2
    return Answers(
        truth, np.eye(3)[predicted] * (confidence - other_probability) + other_probability
    )


def noisy(truth: Ids, errors: float, seed: int) -> Answers:
    """Right but for a share of rows, which get another label."""
    random = np.random.default_rng(seed)
    wrong = random.random(len(truth)) < errors
    return answers(truth, np.where(wrong, (truth + random.integers(1, 3, len(truth))) % 3, truth))


def drawn(rows: int, seed: int) -> Ids:
    return np.random.default_rng(seed).integers(0, 3, rows)


def test_differences_are_b_minus_a() -> None:
    truth = drawn(600, 1)
    a, b = noisy(truth, 0.3, 2), noisy(truth, 0.1, 3)
    comparison = compare(a, b, 300, 0)
    assert comparison.verdict == "better"
    for key in ("accuracy", "macro_f1"):
        difference = getattr(comparison.difference, key)
        assert getattr(comparison.a, key) == getattr(a.measure(), key)
        assert difference.value == pytest.approx(
            getattr(b.measure(), key) - getattr(a.measure(), key)
        )
        low, high = difference.interval
        assert 0 < low < difference.value < high
    back = compare(b, a, 300, 0)
    assert back.verdict == "worse"
    for key in ("accuracy", "macro_f1"):
        mirrored = [-v for v in reversed(getattr(comparison.difference, key).interval)]
        assert getattr(back.difference, key).interval == pytest.approx(mirrored)
    assert json.loads(json.dumps(asdict(comparison))) == to_jsonable_python(comparison)
    assert comparison.line.startswith("better on 600 rows: macro-F1 0.")


def test_the_same_rows_are_drawn_for_both() -> None:
    """Unpaired, the interval of two nearly equal models would be several times as wide."""
    truth = drawn(500, 4)
    a = noisy(truth, 0.3, 5)
    predicted = a.predicted.copy()
    places = np.flatnonzero(~a.right)[:5]
    predicted[places] = truth[places]
    low, high = compare(a, answers(truth, predicted), 400, 0).difference.accuracy.interval
    assert 0 <= low < high < 0.025
    assert high - low < 0.02  # two samples of 500: about 0.11


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (0, 0, 1.0),
        (0, 5, 0.0625),
        (0, 6, 0.03125),
        (1, 8, 0.0390625),
        (10, 10, 1.0),
        (5, 15, 0.041389),
    ],
)
def test_mcnemar_is_the_exact_binomial(only_a: int, only_b: int, p_value: float) -> None:
    truth = np.zeros(only_a + only_b + 4, np.int64)
    a, b = truth.copy(), truth.copy()
    b[:only_a] = 1
    a[only_a : only_a + only_b] = 1
    a[-1] = b[-1] = 2  # both wrong: says nothing
    comparison = mcnemar(answers(truth, a), answers(truth, b))
    assert (comparison.only_a, comparison.only_b) == (only_a, only_b)
    assert comparison.p_value == pytest.approx(p_value, rel=1e-4)


def test_few_changed_rows_prove_nothing() -> None:
    """One row in five resamples as a certainty, and the interval of the difference excludes 0."""
    truth = drawn(5, 6)
    comparison = compare(answers(truth, (truth + 1) % 3), answers(truth, truth), 200, 0)
    assert comparison.difference.macro_f1.interval[0] > 0
    assert (comparison.flipped, comparison.verdict) == (5, "no difference")
    truth = drawn(6, 6)
    comparison = compare(answers(truth, (truth + 1) % 3), answers(truth, truth), 200, 0)
    assert (comparison.flipped, comparison.verdict) == (6, "better")


def test_a_rare_label_given_up_is_worse_though_accuracy_is_not() -> None:
    truth = np.r_[np.zeros(40), np.ones(500), np.full(500, 2)].astype(np.int64)
    a, b = truth.copy(), truth.copy()
    a[40:80] = 0  # a takes some neutral rows for negative
    b[:40] = 1  # b never says negative
    comparison = compare(answers(truth, a), answers(truth, b), 300, 0)
    assert comparison.difference.accuracy.value == 0
    assert comparison.mcnemar.p_value == 1
    assert comparison.verdict == "worse"


def test_contradicting_tests_give_no_verdict() -> None:
    """More rows right, but a rare label lost: neither better nor worse."""
    truth = np.r_[np.zeros(30), np.ones(600), np.full(600, 2)].astype(np.int64)
    a, b = truth.copy(), truth.copy()
    a[30:110] = 2
    b[:30] = 1
    comparison = compare(answers(truth, a), answers(truth, b), 300, 0)
    assert comparison.mcnemar.p_value < 0.01
    assert comparison.difference.macro_f1.interval[1] < 0
    assert comparison.verdict == "no difference"


def test_equal_models_are_seldom_told_apart_and_unequal_ones_mostly() -> None:
    wrong, detected = 0, 0
    for seed in range(200):
        truth = drawn(300, seed)
        a, b = noisy(truth, 0.2, 2 * seed + 1), noisy(truth, 0.2, 2 * seed + 2)
        wrong += compare(a, b, 100, seed).verdict != "no difference"
        detected += compare(a, noisy(truth, 0.08, 2 * seed + 2), 100, seed).verdict == "better"
    assert wrong / 200 < 0.11  # 5 % and the noise of 200 trials, a little more for two tests
    assert detected / 200 > 0.9


def test_a_model_compared_with_itself_does_not_differ() -> None:
    same = noisy(drawn(100, 1), 0.3, 2)
    comparison = compare(same, same, 100, 0)
    assert (comparison.verdict, comparison.flipped) == ("no difference", 0)
    assert comparison.mcnemar.p_value == 1
    assert comparison.difference.macro_f1 == Difference(0, (0, 0))


# --- rows -----------------------------------------------------------------------------------------


def rows_of(truth: Ids) -> pa.Table:
    return pa.table(
        {
            "key": [f"{i:04x}" for i in range(len(truth))],
            "text": [f"Text {i}" for i in range(len(truth))],
            "label": [LABELS[i] for i in truth],
            "row": range(len(truth)),
        }
    )


def test_flipped_rows_come_with_both_answers_the_new_mistakes_first(tmp_path: Path) -> None:
    truth = np.array([0, 1, 2, 0, 1, 2])
    a = answers(truth, np.array([0, 1, 2, 1, 2, 0]), 0.6)
    b = answers(truth, np.array([0, 0, 2, 0, 2, 1]), 0.9)
    table = flipped(rows_of(truth), a, b)
    assert table["text"].to_pylist() == ["Text 1", "Text 5", "Text 3"]
    assert table["label"].to_pylist() == ["neutral", "positive", "negative"]
    assert table["a_predicted"].to_pylist() == ["neutral", "negative", "neutral"]
    assert table["b_predicted"].to_pylist() == ["negative", "neutral", "negative"]
    assert table["a_score"].to_pylist() == pytest.approx([0.6] * 3)
    assert table["b_score"].to_pylist() == pytest.approx([0.9] * 3)
    out, record = tmp_path / "comparison", comparison(verdict="worse")
    for _ in range(2):  # a second one replaces the first
        write_comparison(record, table, out)
    assert pq.read_table(out / "flipped.parquet").equals(table)
    assert ComparisonRecord.read(out / "comparison.json") == record
    assert [p.name for p in tmp_path.iterdir()] == ["comparison"]


def test_rows_that_either_model_was_trained_on_are_left_out() -> None:
    rows = rows_of(drawn(6, 1))
    by_a = pa.chunked_array([["0000", "0001"], ["ffff"]])
    by_b = pa.chunked_array([["0001", "0005"]])
    unseen = find_held_out(rows, [by_a, by_b])
    assert rows["row"].to_numpy()[unseen.flags].tolist() == [2, 3, 4]
    assert unseen.counts == [2, 2]
    unseen = find_held_out(rows, [None, pa.chunked_array([], pa.string())])
    assert unseen.flags.all()
    assert unseen.counts == [None, 0]
