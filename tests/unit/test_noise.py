"""Likely wrong labels: found by folds, reproducible, and skipped with a reason."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from finsent.data.config import NoiseConfig
from finsent.data.ingest.noise import (
    NOISE_SCHEMA,
    Ints,
    confident_issues,
    find_label_issues,
    inspect_labels,
)
from finsent.data.versions.manifest import LabelNoise, SkippedLabelNoise
from finsent.labels import LABELS

pytestmark = pytest.mark.cost(1, "fits a model of labels")

SIGNS = {
    "negative": ["loss", "fell", "cut", "weak", "lawsuit"],
    "neutral": ["meeting", "address", "published", "calendar", "agenda"],
    "positive": ["profit", "rose", "raised", "strong", "award"],
}


def corpus(count: int, seed: int = 0) -> tuple[list[str], Ints]:
    """Texts whose words give their label away."""
    rng = random.Random(seed)
    labels = np.array([i % 3 for i in range(count)])
    filler = ["".join(rng.choices("aeiourstn", k=6)) for _ in range(300)]
    texts = [
        " ".join([*rng.choices(filler, k=8), *rng.choices(SIGNS[LABELS[label]], k=3)])
        for label in labels
    ]
    return texts, labels


def groups_of(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.arange(count, dtype=np.uint64)


def test_flipped_labels_come_first() -> None:
    texts, labels = corpus(600)
    flipped = np.arange(0, 600, 24)
    given = labels.copy()
    given[flipped] = (labels[flipped] + 1) % 3
    issues = find_label_issues(texts, given, groups_of(600), NoiseConfig())
    assert set(issues.rows.tolist()) <= set(flipped.tolist())
    assert len(issues.rows) >= 0.4 * len(flipped)  # those that the model is sure of
    assert (issues.suggested == labels[issues.rows]).all()
    margins = issues.suggested_confidence - issues.label_confidence
    assert (np.diff(margins) <= 0).all()
    assert issues.accuracy > 0.9


def test_a_group_never_teaches_itself() -> None:
    """Copies under one wrong label vouch for each other unless they share a fold."""
    texts, labels = corpus(300)
    wrong = f"{texts[0]} {texts[0]}"
    given = np.append(labels, [(labels[0] + 1) % 3] * 6)
    apart = np.append(groups_of(300), np.arange(300, 306, dtype=np.uint64))
    together = np.append(groups_of(300), np.full(6, 7, np.uint64))
    issue_rows = [
        set(find_label_issues([*texts, *[wrong] * 6], given, g, NoiseConfig()).rows.tolist())
        for g in (apart, together)
    ]
    assert not set(range(300, 306)) <= issue_rows[0]
    assert set(range(300, 306)) <= issue_rows[1]


def test_the_confident_joint_by_hand() -> None:
    # Thresholds: the mean probability of a label among its rows, 0.7, 0.8 and 0.5.
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.1, 0.9, 0.0], [0.75, 0.7, 0.0], [0.1, 0.4, 0.5]]
    )
    # Of label 1 one row is sure of itself and one of label 0: half of its two rows are wrong.
    rows, suggested = confident_issues(probabilities, np.array([0, 0, 1, 1, 2]))
    assert rows.tolist() == [3]
    assert suggested.tolist() == [0]


def rows_of(texts: list[str], labels: list[str]) -> pa.Table:
    count = len(texts)
    return pa.table(
        {
            "key": [f"{i:032x}" for i in range(count)],
            "text": texts,
            "label": labels,
            "group": [f"{i * 7919:016x}" for i in range(count)],
            "source": ["a.csv"] * count,
        }
    )


def test_label_noise_is_reproducible_and_counts_its_rows() -> None:
    texts, labels = corpus(400)
    names = [LABELS[label] for label in labels]
    wrong = range(0, 400, 20)
    for row in wrong:
        names[row] = LABELS[(labels[row] + 1) % 3]
    suspects, entry = inspect_labels(rows_of(texts, names), NoiseConfig())
    again, same = inspect_labels(rows_of(texts, names), NoiseConfig())
    assert suspects.equals(again) and entry == same
    assert suspects.schema == NOISE_SCHEMA
    assert set(suspects["key"].to_pylist()[:5]) <= {f"{row:032x}" for row in wrong}
    assert isinstance(entry, LabelNoise)
    assert entry.rows == 400
    assert entry.issues == len(suspects) > 0
    assert entry.out_of_fold_accuracy > 0.9


@pytest.mark.parametrize(
    ("texts", "labels", "reason"),
    [
        (["up", "down", "flat"] * 5, ["neutral"] * 15, "only one label"),
        ([f"text {i}" for i in range(40)], ["neutral"] * 39 + ["positive"], "positive"),
        (["?", "!", "."] * 20, ["neutral", "positive", "negative"] * 20, "no model"),
        ([], [], ""),
    ],
    ids=["one label", "one row of a label", "no words", "no rows"],
)
def test_labels_that_cannot_be_inspected_have_a_reason(
    texts: list[str], labels: list[str], reason: str
) -> None:
    rows = rows_of(texts, labels) if texts else rows_of(["x"], ["neutral"]).slice(0, 0)
    table, entry = inspect_labels(rows, NoiseConfig())
    assert len(table) == 0
    assert isinstance(entry, SkippedLabelNoise)
    assert reason in entry.reason
