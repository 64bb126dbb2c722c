"""Folds, softened targets, and training on them; an integration test runs self-distillation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from finsent.labels import LABELS
from finsent.training.distill import FoldFilter, soft_targets
from finsent.training.tokens import TokenizedRows, tokenize
from tests.unit.loop_bench import Bench, distance, rows_of, weights

pytestmark = pytest.mark.cost(1, "trains a tiny model")


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Bench:
    return Bench(tiny, tmp_path)


def test_every_group_is_in_one_fold_and_folds_are_about_as_large() -> None:
    groups = [f"{i // 2:016x}" for i in range(4000)]
    rows = pa.table({"group": groups, "row": range(4000)})
    parts = [FoldFilter(fold, 4, 42, is_inside=True).select(rows) for fold in range(4)]
    dealt = [row for rows_of_fold in parts for row in rows_of_fold["row"].to_pylist()]
    assert sorted(dealt) == [*range(4000)]
    assert all(900 < len(rows_of_fold) < 1100 for rows_of_fold in parts)
    fold_groups = [set(rows_of_fold["group"].to_pylist()) for rows_of_fold in parts]
    assert sum(map(len, fold_groups)) == 2000
    others = FoldFilter(1, 4, 42, is_inside=False).select(rows)
    assert set(others["row"].to_pylist()).isdisjoint(parts[1]["row"].to_pylist())
    assert len(others) + len(parts[1]) == 4000
    again = FoldFilter(1, 4, 43, is_inside=True).select(rows)
    assert set(again["row"].to_pylist()) != set(parts[1]["row"].to_pylist())


def test_targets_are_a_mixture() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], np.float32)
    mixed = soft_targets(["positive", "neutral"], probabilities, 0.5)
    assert mixed.tolist() == [[0.25, 0.125, 0.625], [0.0, 1.0, 0.0]]
    assert (
        soft_targets(["positive", "neutral"], probabilities, 1.0).tolist() == probabilities.tolist()
    )


def targeted(tiny: Path, targets: np.ndarray) -> TokenizedRows:
    plain = rows_of(tiny, len(targets), 0)
    texts = [f"Unit {i} sold pumps" for i in range(len(targets))]
    table = pa.table(
        {
            "key": plain.keys(np.arange(len(targets))),
            "text": texts,
            "label": [LABELS[i % 3] for i in range(len(targets))],
        }
    )
    return TokenizedRows.from_table(tokenize(table, str(tiny), None, 64, targets), pad_id=0)


def test_certain_targets_train_as_labels_do(tiny: Path, bench: Bench) -> None:
    labels = np.eye(3, dtype=np.float32)[np.arange(40) % 3]
    soft = targeted(tiny, labels)
    hard = targeted(tiny, labels)
    hard.targets = None
    soft_run, hard_run = bench.run(rows=soft, epochs=1), bench.run(rows=hard, epochs=1)
    assert distance(weights(soft_run.last), weights(hard_run.last)) < 1e-6


def test_targets_replace_labels(tiny: Path, bench: Bench) -> None:
    """All targets are neutral with probability 0.8, and the model learns to predict neutral."""
    rows = targeted(tiny, np.tile(np.array([0.1, 0.8, 0.1], np.float32), (40, 1)))
    run = bench.run(rows=rows, epochs=12)
    losses = [metrics.train_loss for metrics in run.metrics]
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
    assert losses[-1] == pytest.approx(entropy, abs=0.05)  # the minimum of the cross-entropy
    matrix = np.array(run.metrics[-1].validation_confusion)
    assert matrix[:, LABELS.index("neutral")].sum() == matrix.sum()
