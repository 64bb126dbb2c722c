"""Slices of evaluated rows, against a slow computation of the same."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from finsent.evaluation.slices import LONG, SHORT, slices, wilson
from tests.properties import examples

pytestmark = pytest.mark.cost(1.5, "tries many tables")

PHRASES = [
    "Sales were flat",
    "Profit did not recover",
    "No. 2 maker of lifts",
    "It isn\u2019t over",
    "rose 5",
    "buy $ABC",
    "$5 a share",
    "see https://example.org",
    "A note on cannoli",
    "w " * 20,
    "x " * 30,
    "US$AB is odd",
    "without a loss",
    "",
]
NEGATED = {"not", "isn\u2019t", "without", "no", "no."}


def slow_value(name: str, row: dict[str, Any]) -> str:
    """The part that a row belongs to, word by word."""
    words = row["text"].split()
    if name == "source":
        return str(row["source"])
    if name == "length":
        return "short" if len(words) <= SHORT else "medium" if len(words) <= LONG else "long"
    if name == "number":
        return "has a number" if any(c.isdigit() for c in row["text"]) else "has no number"
    if name == "negation":
        joined = row["text"].replace("No. 2", "")
        negations = NEGATED & {word.lower() for word in joined.split()}
        return "has a negation" if negations else "has no negation"
    if name == "cashtag or URL":
        tag = any(re.fullmatch(r"\$[A-Z]+", word) or "://" in word for word in words)
        return "has one" if tag else "has none"
    share = row["agreement"]
    if share is None:
        return "not known"
    if share >= 1:
        return "all"
    levels = [(0.75, "0.75 to 1"), (0.66, "0.66 to 0.75"), (0, "below 0.66")]
    return next(level for least, level in levels if share >= least)


row = st.fixed_dictionaries(
    {
        "text": st.lists(st.sampled_from(PHRASES), min_size=1, max_size=2).map(" ; ".join),
        "source": st.sampled_from(["a.csv", "b.csv"]),
        "agreement": st.sampled_from([None, 0.5, 0.66, 0.75, 1.0]),
        "truth": st.integers(0, 2),
        "predicted": st.integers(0, 2),
    }
)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    agreement = pa.array([r["agreement"] for r in rows], pa.float32())  # as in dataset versions
    columns = {"text": [r["text"] for r in rows], "source": [r["source"] for r in rows]}
    return pa.table({**columns, "agreement": agreement})


def ids(rows: list[dict[str, Any]], name: str) -> npt.NDArray[np.int64]:
    return np.array([r[name] for r in rows], np.int64)


@examples(60)
@given(st.lists(row, min_size=1, max_size=25), st.integers(1, 6))
def test_slices_are_what_a_loop_finds(rows: list[dict[str, Any]], fewest: int) -> None:
    truth, predicted = ids(rows, "truth"), ids(rows, "predicted")
    entries = slices(table(rows), truth, np.eye(3)[predicted], fewest)
    accuracy = (truth == predicted).mean()
    seen: dict[str, int] = {}
    for entry in entries:
        value = entry.value.split(",")[0] if entry.slice == "length" else entry.value
        here = np.array([slow_value(entry.slice, r) == value for r in rows])
        t, p = truth[here], predicted[here]
        assert entry.rows == here.sum()
        assert entry.accuracy == pytest.approx(sk.accuracy_score(t, p))
        assert entry.macro_f1 == pytest.approx(
            sk.f1_score(t, p, average="macro", labels=np.unique(t), zero_division=0)
        )
        assert entry.difference == pytest.approx(entry.accuracy - accuracy)
        assert entry.small == (entry.rows < fewest)
        seen[entry.slice] = seen.get(entry.slice, 0) + 1
        assert entry.interval[0] <= entry.accuracy <= entry.interval[1]
    for name in ("source", "length", "number", "negation", "cashtag or URL", "agreement"):
        values = {slow_value(name, r) for r in rows}
        assert seen.get(name, 0) == (len(values) if len(values) > 1 else 0)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_is_the_textbooks(rows: int, share: float) -> None:
    hits = round(rows * share)
    low, high = binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits, rows) == pytest.approx((low, high), abs=1e-9)


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_tiny_slices_do_not_lead() -> None:
    """One wrong row of one is worse than 60 of 100 by its share, not by what is known."""
    sources = ["big"] * 100 + ["good"] * 100 + ["tiny"] + ["few"] * 40
    right = [True] * 60 + [False] * 40 + [True] * 100 + [False] + [True] * 22 + [False] * 18
    truth = np.zeros(len(sources), np.int64)
    predicted = np.where(right, 0, 1)
    rows = pa.table({"text": ["x"] * len(sources), "source": sources})
    entries = slices(rows, truth, np.eye(3)[predicted])
    assert [(entry.value, entry.small) for entry in entries] == [
        ("big", False),
        ("few", False),
        ("good", False),
        ("tiny", True),
    ]
    assert entries[1].accuracy < entries[0].accuracy  # 22 of 40 say less than 60 of 100


def test_rows_without_source_and_agreement_are_cut_by_their_text() -> None:
    rows = pa.table({"text": ["Sales fell 5 %", "Sales fell"]})
    entries = slices(rows, np.array([0, 0]), np.eye(3)[[0, 1]], min_rows=1)
    assert [entry.slice for entry in entries] == ["number", "number"]


def test_no_rows_give_no_slices() -> None:
    rows = pa.table({"text": pa.array([], pa.string())})
    assert slices(rows, np.array([], np.int64), np.zeros((0, 3))) == ()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("Never again", "negation", "has a negation"),
        ("Now or later", "negation", "has no negation"),
        ("A notable gain", "negation", "has no negation"),
        ("They won't pay", "negation", "has a negation"),
        ("The No. 1 lender", "negation", "has no negation"),
        ("Long $BRK.B here", "cashtag or URL", "has one"),
        ("www.example.org", "cashtag or URL", "has one"),
        ("US$ 5 million", "cashtag or URL", "has none"),
        ("$5bn", "cashtag or URL", "has none"),
        ("Up \u0665 percent", "number", "has a number"),
    ],
)
def test_signs_in_texts(text: str, name: str, value: str) -> None:
    opposite = {
        "negation": ["is not", "is"],
        "cashtag or URL": ["$X", "x"],
        "number": ["1", "one"],
    }[name]
    rows = pa.table({"text": [text, *opposite]})
    entries = slices(rows, np.array([0, 0, 0]), np.eye(3)[[1, 0, 0]], min_rows=1)
    [here] = [entry for entry in entries if entry.slice == name and entry.accuracy < 1]
    assert here.value == value
