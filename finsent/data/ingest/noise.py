"""Likely wrong labels, found by confident learning.

Confident learning (Northcutt et al. 2021, https://jair.org/index.php/jair/article/view/12125) over
out-of-fold probabilities of TF-IDF and logistic regression. It is implemented here because the
package cleanlab is under the AGPL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.config import NoiseConfig
from finsent.data.rows.split import SPLITS
from finsent.data.versions.manifest import LabelNoise, SkippedLabelNoise
from finsent.labels import LABEL2ID, LABELS

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

METHOD = "confident learning on out-of-fold TF-IDF and logistic regression"
NOISE_SCHEMA = pa.schema(
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
_COLUMNS = ["key", "text", "label", "group", "source"]
_MAX_REASON_CHARS = 100


@dataclass(frozen=True)
class LabelIssues:
    """Rows whose label is likely wrong, the most suspicious first."""

    rows: Ints  # positions
    suggested: Ints  # label ids
    label_confidence: Floats  # out-of-fold probability of the given label
    suggested_confidence: Floats  # out-of-fold probability of the suggested label
    accuracy: float  # of the out-of-fold predictions on all rows
    macro_f1: float


def find_label_noise(version_dir: Path, config: NoiseConfig) -> LabelNoise | SkippedLabelNoise:
    """Write `label_noise.parquet`: likely wrong labels in a sample of the rows.

    The sample is the rows with the smallest keys. Keys are hashes, so the sample is as good as a
    random one, and reproducible.
    """
    table, entry = inspect_labels(_read_smallest_keys(version_dir, config.max_rows), config)
    pq.write_table(table, version_dir / "label_noise.parquet", compression="zstd")
    return entry


def _read_smallest_keys(version_dir: Path, count: int) -> pa.Table:
    """Return the first `count` rows of all splits in the order of their keys."""
    part_names = sorted(
        {file.name for name in SPLITS for file in (version_dir / name).glob("*.parquet")}
    )
    tables: list[pa.Table] = []
    for part_name in part_names:  # a part holds the same range of keys in all splits
        tables += [
            pq.read_table(file, columns=_COLUMNS, partitioning=None)
            for split in SPLITS
            if (file := version_dir / split / part_name).is_file()
        ]
        if sum(map(len, tables)) >= count:
            break
    return pa.concat_tables(tables).sort_by("key").slice(0, count)


def inspect_labels(
    rows: pa.Table, config: NoiseConfig
) -> tuple[pa.Table, LabelNoise | SkippedLabelNoise]:
    """Return the table of likely wrong labels, and the entry of the manifest.

    Args:
        rows: columns `key`, `text`, `label` (name), `group` (hex), `source`.
    """
    labels = np.array([LABEL2ID[name] for name in rows["label"].to_pylist()], np.int64)
    groups = np.array([int(group, 16) for group in rows["group"].to_pylist()], np.uint64)
    reason = _reason_to_skip(labels, groups, config)
    if not reason:
        try:
            issues = find_label_issues(rows["text"].to_pylist(), labels, groups, config)
        except ValueError as error:
            message = " ".join(str(error).split())[:_MAX_REASON_CHARS]
            reason = f"no model can be fitted ({message})"
    if reason:
        return NOISE_SCHEMA.empty_table(), SkippedLabelNoise(
            rows=len(rows), method=METHOD, reason=reason
        )
    table = _issue_table(rows.take(pa.array(issues.rows)), issues)
    return table, LabelNoise(
        rows=len(rows),
        method=METHOD,
        issues=len(table),
        out_of_fold_accuracy=round(issues.accuracy, 4),
        out_of_fold_macro_f1=round(issues.macro_f1, 4),
    )


def _reason_to_skip(labels: Ints, groups: Words, config: NoiseConfig) -> str:
    """Return why the rows cannot be cross-validated, or an empty string."""
    folds = _folds(groups, config)
    for label, name in enumerate(LABELS):
        if len(np.unique(folds[labels == label])) == 1:
            return f"label {name} is in one fold only, so no model learns it from the others"
    if len(np.unique(labels)) < 2:
        return "there is only one label"
    return "" if len(np.unique(folds)) > 1 else "all rows are in one fold"


def _issue_table(suspects: pa.Table, issues: LabelIssues) -> pa.Table:
    margin = issues.suggested_confidence - issues.label_confidence
    return pa.table(
        {
            "key": suspects["key"],
            "text": suspects["text"],
            "label": suspects["label"],
            "suggested": pa.array(LABELS, pa.string()).take(pa.array(issues.suggested)),
            "label_confidence": pa.array(issues.label_confidence, pa.float32()),
            "suggested_confidence": pa.array(issues.suggested_confidence, pa.float32()),
            "margin": pa.array(margin, pa.float32()),
            "source": suspects["source"],
        },
        schema=NOISE_SCHEMA,
    )


def find_label_issues(
    texts: Sequence[str], labels: Ints, groups: Words, config: NoiseConfig
) -> LabelIssues:
    """Find labels that predictions from the other folds contradict.

    Args:
        labels: ids.
        groups: near-duplicates share a group, and so a fold.

    Raises:
        ValueError: a fold would train on fewer than two labels, or on no word at all.
    """
    from sklearn.metrics import f1_score  # 1 s of imports, in one task of an ingest

    probabilities = predict_out_of_fold(texts, labels, _folds(groups, config))
    predicted = probabilities.argmax(1)
    rows, suggested = confident_issues(probabilities, labels)
    label_confidence = probabilities[rows, labels[rows]]
    suggested_confidence = probabilities[rows, suggested]
    order = np.argsort(label_confidence - suggested_confidence, kind="stable")
    return LabelIssues(
        rows=rows[order],
        suggested=suggested[order],
        label_confidence=label_confidence[order],
        suggested_confidence=suggested_confidence[order],
        accuracy=float((predicted == labels).mean()),
        macro_f1=float(f1_score(labels, predicted, average="macro", labels=np.unique(labels))),
    )


def _folds(groups: Words, config: NoiseConfig) -> Ints:
    return (groups % np.uint64(config.folds)).astype(np.int64)


def predict_out_of_fold(texts: Sequence[str], labels: Ints, folds: Ints) -> Floats:
    """Return the probabilities of each row by a model of the other folds, shape (rows, labels)."""
    # 1 s of imports, in one task of an ingest.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union
    from threadpoolctl import threadpool_limits

    # The features do not depend on labels, so all folds may share them.
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4), sublinear_tf=True, min_df=2),
    ).fit_transform(texts)
    probabilities = np.zeros((len(labels), len(LABELS)))
    for fold in np.unique(folds):
        held_out, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        model = LogisticRegression(C=4.0, tol=1e-3, max_iter=200, class_weight="balanced")
        with threadpool_limits(1):  # more threads only wait for each other: the features are sparse
            model.fit(features[others], labels[others])
        predictions = model.predict_proba(features[held_out])
        probabilities[held_out[:, None], model.classes_] = predictions
    return probabilities


def confident_issues(probabilities: Floats, labels: Ints) -> tuple[Ints, Ints]:
    """Return the rows whose label is likely wrong and their likely labels ("prune by noise rate").

    A label's threshold is its mean probability among the rows that carry it. The confident joint
    counts rows by their label and by the most probable label among those whose thresholds they
    reach. Scaled to the number of rows per label, it estimates how many rows of each label truly
    have another label. That many rows are returned, those with the largest margin first.
    """
    label_count = probabilities.shape[1]
    rows_per_label = np.bincount(labels, minlength=label_count)
    sums = np.array([probabilities[labels == label, label].sum() for label in range(label_count)])
    thresholds = np.where(rows_per_label > 0, sums / np.maximum(rows_per_label, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    is_confident = confident.max(1) >= 0
    joint = np.zeros((label_count, label_count))
    np.add.at(joint, (labels[is_confident], confident.argmax(1)[is_confident]), 1)
    wrong_rows = joint / np.maximum(joint.sum(1, keepdims=True), 1) * rows_per_label[:, None]
    best: dict[int, tuple[float, int]] = {}  # row -> largest margin, and the label that has it
    for label, other in zip(*np.nonzero(wrong_rows), strict=True):
        if label == other:
            continue
        rows = np.flatnonzero(labels == label)
        margins = probabilities[rows, other] - probabilities[rows, label]
        for index in np.argsort(-margins, kind="stable")[: round(wrong_rows[label, other])]:
            row, candidate = int(rows[index]), (float(margins[index]), int(other))
            best[row] = max(best.get(row, (-np.inf, 0)), candidate)
    issue_rows = np.array(sorted(best), np.int64)
    return issue_rows, np.array([best[row][1] for row in issue_rows.tolist()], np.int64)
