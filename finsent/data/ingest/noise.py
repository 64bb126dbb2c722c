"""Likely wrong labels, and the best that any classifier can do on labels that contradict.

Confident learning (Northcutt et al. 2021, https://jair.org/index.php/jair/article/view/12125) over
out-of-fold probabilities of TF-IDF and logistic regression. Its few lines are here because the
package cleanlab is under the AGPL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finsent.data.config import NoiseConfig
from finsent.labels import LABEL2ID, LABELS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

METHOD = "confident learning on out-of-fold TF-IDF and logistic regression"
NOISE = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("suggested", pa.string()),
        ("label_confidence", pa.float32()),
        ("suggested_confidence", pa.float32()),
        ("margin", pa.float32()),
        ("source", pa.string()),
    ]
)


@dataclass(frozen=True)
class LabelIssues:
    """Rows whose label is likely wrong, the most suspicious first."""

    rows: Ints  # positions
    suggested: Ints  # label ids
    label_confidence: Floats  # out-of-fold probability of the given label
    suggested_confidence: Floats
    accuracy: float  # of the out-of-fold predictions
    macro_f1: float


def label_issues(
    texts: Sequence[str], labels: Ints, groups: npt.NDArray[np.uint64], config: NoiseConfig
) -> LabelIssues:
    """Find labels that predictions from the other folds contradict.

    Args:
        labels: ids.
        groups: near-duplicates share a group, and so a fold.

    Raises:
        ValueError: a fold would train on fewer than two labels, or on no word at all.
    """
    from sklearn.metrics import f1_score

    probabilities = out_of_fold(texts, labels, (groups % np.uint64(config.folds)).astype(np.int64))
    predicted = probabilities.argmax(1)
    rows, suggested = confident_issues(probabilities, labels)
    given = probabilities[rows, labels[rows]]
    confidence = probabilities[rows, suggested]
    order = np.argsort(given - confidence, kind="stable")
    return LabelIssues(
        rows=rows[order],
        suggested=suggested[order],
        label_confidence=given[order],
        suggested_confidence=confidence[order],
        accuracy=float((predicted == labels).mean()),
        macro_f1=float(f1_score(labels, predicted, average="macro", labels=np.unique(labels))),
    )


def out_of_fold(texts: Sequence[str], labels: Ints, fold: Ints) -> Floats:
    """Probabilities of each row by a model that has not seen its fold: (rows, labels)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    # The features know no label, so all folds may share them.
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4), sublinear_tf=True, min_df=2),
    ).fit_transform(texts)
    found = np.zeros((len(labels), len(LABELS)))
    for number in np.unique(fold):
        held, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        model = LogisticRegression(C=4.0, tol=1e-3, max_iter=200, class_weight="balanced")
        model.fit(features[rest], labels[rest])
        found[held[:, None], model.classes_] = model.predict_proba(features[held])
    return found


def confident_issues(probabilities: Floats, labels: Ints) -> tuple[Ints, Ints]:
    """Rows whose label is likely wrong, and the label that each likely has ("prune by noise rate").

    A label's threshold is its mean probability among rows that carry it. The confident joint counts
    rows by given label and by the most probable of the labels whose thresholds they reach; scaled
    to the labels' rows it says how many rows of each label truly have which other. That many are
    taken, those with the largest margin between the two first.
    """
    count = probabilities.shape[1]
    carried = np.bincount(labels, minlength=count)
    totals = np.array([probabilities[labels == label, label].sum() for label in range(count)])
    thresholds = np.where(carried > 0, totals / np.maximum(carried, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    sure = confident.max(1) >= 0
    joint = np.zeros((count, count))
    np.add.at(joint, (labels[sure], confident.argmax(1)[sure]), 1)
    wrong = joint / np.maximum(joint.sum(1, keepdims=True), 1) * carried[:, None]
    found: dict[int, tuple[float, int]] = {}
    for given, other in zip(*np.nonzero(wrong), strict=True):
        if given == other:
            continue
        rows = np.flatnonzero(labels == given)
        margins = probabilities[rows, other] - probabilities[rows, given]
        for place in np.argsort(-margins, kind="stable")[: round(wrong[given, other])]:
            best = found.get(int(rows[place]), (-np.inf, 0))
            found[int(rows[place])] = max(best, (float(margins[place]), int(other)))
    rows = np.array(sorted(found), np.int64)
    return rows, np.array([found[row][1] for row in rows.tolist()], np.int64)


def report_noise(rows: pa.Table, config: NoiseConfig) -> tuple[pa.Table, dict[str, Any]]:
    """The table of suspects, and the manifest's entry.

    Args:
        rows: columns `key`, `text`, `label` (name), `group` (hex), `source`.
    """
    labels = np.array([LABEL2ID[name] for name in rows["label"].to_pylist()], np.int64)
    groups = np.array([int(group, 16) for group in rows["group"].to_pylist()], np.uint64)
    entry: dict[str, Any] = {"rows": len(rows), "method": METHOD}
    reason = _too_few(labels, groups, config)
    if not reason:
        try:
            found = label_issues(rows["text"].to_pylist(), labels, groups, config)
        except ValueError as error:
            reason = f"no model can be fitted ({' '.join(str(error).split())[:100]})"
    if reason:
        return NOISE.empty_table(), {**entry, "issues": None, "reason": reason}
    names = pa.array(LABELS, pa.string())
    suspects = rows.take(pa.array(found.rows))
    table = pa.table(
        {
            "key": suspects["key"],
            "text": suspects["text"],
            "label": suspects["label"],
            "suggested": names.take(pa.array(found.suggested)),
            "label_confidence": pa.array(found.label_confidence, pa.float32()),
            "suggested_confidence": pa.array(found.suggested_confidence, pa.float32()),
            "margin": pa.array(found.suggested_confidence - found.label_confidence, pa.float32()),
            "source": suspects["source"],
        },
        schema=NOISE,
    )
    return table, {
        **entry,
        "issues": len(table),
        "out_of_fold_accuracy": round(found.accuracy, 4),
        "out_of_fold_macro_f1": round(found.macro_f1, 4),
    }


def _too_few(labels: Ints, groups: npt.NDArray[np.uint64], config: NoiseConfig) -> str:
    """Why the rows say nothing about their labels; empty when they do."""
    folds = (groups % np.uint64(config.folds)).astype(np.int64)
    for label, name in enumerate(LABELS):
        where = np.unique(folds[labels == label])
        if len(where) == 1:
            return f"label {name} stands in one fold only, so no model learns it from the others"
    if len(np.unique(labels)) < 2:
        return "there is only one label"
    return "" if len(np.unique(folds)) > 1 else "all rows are in one fold"
