"""Figures equal scikit-learn's; baselines and pictures are what their names say."""

from __future__ import annotations

import io
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console
from sklearn import metrics as sk

from finsent.evaluation.baselines import majority, tfidf, vader
from finsent.evaluation.bootstrap import intervals
from finsent.evaluation.metrics import Answers, confusion, scores
from finsent.evaluation.pictures import confusion_picture, label_table, score_table
from finsent.labels import LABELS
from finsent.metrics_record import EvaluationMetrics, MatrixScores
from tests.unit.evaluations import evaluation

Ids = npt.NDArray[np.int64]
NEG, NEU, POS = 0, 1, 2


def ids(*values: int) -> Ids:
    return np.array(values, np.int64)


def random_ids(rows: int, among: list[int], seed: int) -> Ids:
    return np.random.default_rng(seed).choice(np.array(among, np.int64), rows)


ANSWERS = {
    "all labels": (random_ids(200, [0, 1, 2], 1), random_ids(200, [0, 1, 2], 2)),
    "all right": (random_ids(50, [0, 1, 2], 1), random_ids(50, [0, 1, 2], 1)),
    "all wrong": (ids(0, 1, 2), ids(1, 2, 0)),
    "one row": (ids(POS), ids(POS)),
    "label absent from the truth": (random_ids(60, [0, 2], 3), random_ids(60, [0, 1, 2], 4)),
    "label never predicted": (random_ids(60, [0, 1, 2], 5), random_ids(60, [0, 1], 6)),
    "label absent from both": (random_ids(60, [0, 1], 7), random_ids(60, [0, 1], 8)),
    "one label each, different": (ids(0, 0, 0), ids(2, 2, 2)),
}


@pytest.mark.filterwarnings("ignore:A single label was found")  # of scikit-learn's MCC
@pytest.mark.parametrize("name", ANSWERS)
def test_scores_are_those_of_scikit_learn(name: str) -> None:
    truth, predicted = ANSWERS[name]
    every: dict[str, Any] = {"labels": [0, 1, 2], "zero_division": 0}
    matrix = confusion(truth, predicted)
    measured = scores(matrix)
    assert matrix.tolist() == sk.confusion_matrix(truth, predicted, labels=[0, 1, 2]).tolist()
    assert np.array_equal(measured.confusion, matrix)
    assert measured.rows == len(truth)
    assert measured.accuracy == pytest.approx(sk.accuracy_score(truth, predicted))
    present = np.unique(truth)
    for kind, labels in (("macro", present), ("weighted", [0, 1, 2])):
        f1 = sk.f1_score(truth, predicted, average=kind, labels=labels, zero_division=0)
        assert getattr(measured, f"{kind}_f1") == pytest.approx(f1)
    assert measured.macro_over == tuple(LABELS[i] for i in present)
    assert measured.mcc == pytest.approx(sk.matthews_corrcoef(truth, predicted))
    by_label = sk.precision_recall_fscore_support(truth, predicted, **every)
    for i, label in enumerate(LABELS):
        figures = [
            getattr(measured.labels[label], k) for k in ("precision", "recall", "f1", "support")
        ]
        if i not in present:
            assert figures == [0.0 if i in predicted else None, None, None, 0]
            continue
        assert figures == pytest.approx([column[i] for column in by_label])


def test_label_without_rows_is_in_no_mean_and_in_no_resample() -> None:
    """Two labels, as in many public files: a mean over three could not pass 0.667."""
    truth = ids(*[NEG] * 40 + [POS] * 20)
    right = Answers(truth, np.eye(3)[truth])
    figures = right.measure()
    assert (figures.macro_f1, figures.macro_over) == (1.0, ("negative", "positive"))
    assert figures.labels["neutral"].auroc is None
    assert figures.auroc == 1.0
    assert intervals(right, 200, 0)["macro_f1"] == (1.0, 1.0)
    # One row of a label is absent from many resamples; it counts as a label in each of them.
    rare = Answers(ids(*[NEG] * 30, POS), np.eye(3)[ids(*[NEG] * 30, POS)])
    low, high = intervals(rare, 200, 0)["macro_f1"] or []
    assert (low, high) == (0.5, 1.0)


def test_counts_of_parts_add_up() -> None:
    truth, predicted = ANSWERS["all labels"]
    parts = sum(confusion(truth[i::3], predicted[i::3]) for i in range(3))
    assert np.array_equal(parts, confusion(truth, predicted))


def test_no_rows_score_nothing_and_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = scores(confusion(ids(), ids()))
    assert (figures.rows, figures.accuracy, figures.macro_f1) == (0, 0.0, 0.0)


def test_scores_are_json() -> None:
    figures = scores(confusion(*ANSWERS["all labels"]))
    assert MatrixScores.model_validate_json(figures.model_dump_json()) == figures
    assert [type(getattr(figures, k)) for k in ("accuracy", "macro_f1", "rows")] == [
        float,
        float,
        int,
    ]


# --- baselines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(ids(POS, NEG, POS), POS), (ids(NEU), NEU), (ids(NEG, NEU, NEU, POS, NEG, NEG), NEG)],
)
def test_majority_is_the_most_frequent_training_label(labels: Ids, expected: int) -> None:
    probabilities = majority(labels, 4)
    assert probabilities.argmax(1).tolist() == [expected] * 4
    assert probabilities == pytest.approx(np.tile([(labels == i).mean() for i in range(3)], (4, 1)))
    assert majority(labels, 0).shape == (0, 3)


def headlines(count: int, start: int = 0) -> tuple[list[str], Ids]:
    words = ["losses widened", "meeting held", "profit rose"]
    numbers = range(start, start + count)
    return [f"Firm {i % 7}: {words[i % 3]} in region {i % 5}" for i in numbers], ids(
        *(i % 3 for i in numbers)
    )


def test_tfidf_learns_words() -> None:
    texts, labels = headlines(60)
    unseen, truth = headlines(30, start=60)
    probabilities = tfidf(texts, labels, unseen)
    assert probabilities.argmax(1).tolist() == truth.tolist()
    assert probabilities.sum(1) == pytest.approx(np.ones(30))
    assert tfidf(texts, labels, unseen).tolist() == probabilities.tolist()


def test_tfidf_needs_word_pairs_for_these() -> None:
    texts = ["costs up profit down", "profit up costs down", "costs down profit up"] * 5
    labels = ids(*[NEG, POS, POS] * 5)
    probabilities = tfidf(texts, labels, ["profit up costs down", "costs up profit down"])
    assert probabilities.argmax(1).tolist() == [POS, NEG]
    assert probabilities[:, NEU].tolist() == [0, 0]  # no training row has it


def test_tfidf_answers_texts_without_a_known_word() -> None:
    probabilities = tfidf(*headlines(60), ["", "zzz"])
    assert probabilities.sum(1) == pytest.approx([1, 1])


def test_vader_knows_plain_english_and_not_finance() -> None:
    probabilities = vader(
        ["A great success!", "A horrible disaster.", "The meeting is in May.", ""]
    )
    assert probabilities.argmax(1).tolist() == [POS, NEG, NEU, NEU]
    assert probabilities.sum(1).tolist() == [1.0] * 4
    assert vader(["Operating loss narrowed."]).argmax(1).tolist() == [NEG]  # a person: positive
    assert vader([]).shape == (0, 3)


def test_tfidf_of_one_label_predicts_it() -> None:
    """A user's file may hold nothing else; the report must still come out."""
    probabilities = tfidf(["Profit rose", "Sales grew"], ids(POS, POS), ["Costs fell"])
    assert probabilities.tolist() == [[0, 0, 1]]


# --- pictures -------------------------------------------------------------------------------------


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:24])
    return int(width), int(height)


@pytest.mark.parametrize(
    ("matrix", "title"),
    [
        (confusion(*ANSWERS["all labels"]), "test split of 0123abcd: macro-F1 0.333, 200 rows"),
        (np.zeros((3, 3), np.int64), "no rows"),
        (np.full((3, 3), 10**7, np.int64), "many rows"),
        (np.eye(3, dtype=np.int64), "us$_{$q2.csv: macro-F1 1.000, 3 rows"),  # a file's name
    ],
    ids=["usual", "empty", "large", "dollar signs"],
)
def test_confusion_picture_is_a_png_of_readable_size(
    tmp_path: Path, matrix: Ids, title: str
) -> None:
    path = tmp_path / "confusion.png"
    confusion_picture(matrix, path, title)
    width, height = png_size(path)
    assert 600 <= height <= width <= 1600
    assert 5_000 < path.stat().st_size < 300_000


def test_confusion_picture_shows_its_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    confusion_picture(np.eye(3, dtype=np.int64) * 10, first, "rows")
    confusion_picture(np.eye(3, dtype=np.int64) * 11, second, "rows")
    assert first.read_bytes() != second.read_bytes()


def rendered(table: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160).print(table)
    return stream.getvalue()


def measured() -> EvaluationMetrics:
    model = np.eye(3)[[0, 1, 2, 1]] * 0.7 + 0.1
    majority = Answers(ids(0, 1, 2, 2), np.eye(3)[[2] * 4]).measure()
    return evaluation(
        Answers(ids(0, 1, 2, 2), model).measure(),
        intervals={"macro_f1": [0.25, 0.9], "auroc": None},
        baselines={"majority": majority},
    )


def test_score_table_sets_the_model_beside_its_baselines() -> None:
    lines = rendered(score_table(measured(), "test split of 0123abcd")).splitlines()
    assert "test split of 0123abcd" in lines[0]
    for name, figures in {
        "macro-F1": ["0.778", "0.250", "0.900", "0.222"],
        "accuracy": ["0.750", "0.500"],
        "F1 neutral": ["0.667", "0.000"],
        "F1 positive": ["0.667", "0.667"],
        "ECE": ["0.050", "0.500"],
    }.items():
        row = next(line for line in lines if name in line).split(name)[1]
        assert re.findall(r"\d\.\d+", row) == figures


def test_what_is_undefined_is_shown_as_such() -> None:
    one_label = Answers(ids(2, 2), np.full((2, 3), 1 / 3)).measure()
    row = next(
        x for x in rendered(score_table(evaluation(one_label), "")).splitlines() if "AUROC" in x
    )
    assert re.findall(r"[-\d.]+", row) == ["-"]


def test_label_table_gives_each_label_its_figures() -> None:
    lines = rendered(label_table(measured().labels)).splitlines()
    for label, figures in {
        "negative": ["1.000", "1.000", "1.000", "1.000", "1"],
        "neutral": ["0.500", "1.000", "0.667", "0.833", "1"],
        "positive": ["1.000", "0.500", "0.667", "0.750", "2"],
    }.items():
        row = next(line for line in lines if label in line)
        assert [word for word in row.split() if word[0].isdigit()] == figures


def test_file_name_with_brackets_is_shown_as_it_is() -> None:
    """Titles hold file names; they are no markup."""
    assert "[bold]q1[/x].csv" in rendered(score_table(measured(), "[bold]q1[/x].csv"))
