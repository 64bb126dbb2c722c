"""The gate of exports: labels, abstentions, confidence, macro-F1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from finsent.errors import InputError
from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.export.parity import Parity, compare, refusal, share
from finsent.files import read_json, write_json
from finsent.inference.export_record import read_exports
from finsent.modeling.model_dir import EXPORTS
from tests.unit.exports.engines import ANY, EXACT

pytestmark = [
    pytest.mark.cost(8, "loads and measures backends"),
    pytest.mark.usefixtures("keep_threads"),
]


def quantized(rows: int, labels: int = 0, sure: float = 0.9, moved: float = 0.0) -> Parity:
    """Compare with an export that answers alike but for some first rows, which become wrong.

    Args:
        labels: rows that get another label.
        sure: the model's confidence.
        moved: what the export's is lower by, on each row.
    """
    truth = np.arange(rows) % 3
    exact, changed = (np.full((rows, 3), (1 - p) / 2) for p in (sure, sure - moved))
    exact[np.arange(rows), truth] = sure
    predicted = np.where(np.arange(rows) < labels, (truth + 1) % 3, truth)
    changed[np.arange(rows), predicted] = sure - moved
    return compare(exact.astype(np.float32), changed.astype(np.float32), truth, threshold=0.8)


@pytest.mark.parametrize(
    ("difference", "is_kept"), [(0, True), (1e-4, True), (1.1e-4, False), (float("nan"), False)]
)
def test_gate_of_fp32(difference: float, is_kept: bool) -> None:
    reason = refusal(replace(quantized(3), max_difference=difference), "fp32", ExportConfig())
    assert (reason is None) == is_kept
    if difference > 0 and not is_kept:
        assert "export.max_difference" in str(reason)


@pytest.mark.parametrize(
    ("rows", "labels", "word"),
    [
        # Clopper and Pearson: without a change at most 1 - 0.05 ** (1 / rows) change.
        (74, 0, "macro-F1 changes by +0.0000"),  # 0.0397 of the labels; macro-F1 takes more rows
        (73, 0, "73 rows are too few to tell"),  # 0.0402
        (3, 0, "100.00% of the labels stay the same (95 %: at least 36.84%)"),
        (244, 0, None),
        (244, 1, None),
        (244, 2, None),
        (244, 3, None),
        (244, 4, None),
        (244, 5, "min_same_labels"),
        (244, 12, "min_same_labels"),
        (3000, 5, None),
        (3000, 6, "worse on 3000 rows"),  # McNemar: p = 0.031
    ],
)
def test_gate_of_labels(rows: int, labels: int, word: str | None) -> None:
    reason = refusal(quantized(rows, labels), "int8", ExportConfig())
    assert (reason is None) if word is None else (word in str(reason)), reason


def test_gate_of_abstentions_and_confidence() -> None:
    config = ExportConfig()
    near = quantized(400, sure=0.805, moved=0.01)  # the threshold is 0.8: each row crosses it
    assert near.changes.same_abstentions is not None
    assert near.changes.same_abstentions.value == 0
    assert "0.00% of the abstentions" in str(refusal(near, "int8", config))
    assert refusal(quantized(400, moved=0.019), "int8", config) is None
    assert "export.max_score_change" in str(refusal(quantized(400, moved=0.021), "int8", config))
    even = np.full((400, 3), 1 / 3, np.float32)
    never = compare(even, even, np.arange(400) % 3)
    assert never.changes.same_abstentions is None


def test_shares_have_the_exact_bound() -> None:
    same = np.ones(244, bool)
    assert share(same).value == 1
    assert share(same).bound == pytest.approx(0.05 ** (1 / 244))
    same[:4] = False
    # Chance of at most 4 changes in 244 rows is 5 % at the bound.
    assert binom.cdf(4, 244, 1 - share(same).bound) == pytest.approx(0.05)


def test_answers_that_are_no_numbers_are_refused() -> None:
    exact = np.full((400, 3), 1 / 3, np.float32)
    damaged = exact.copy()
    damaged[7] = np.nan
    for precision in ("fp32", "int8"):
        broken = compare(exact, damaged, np.arange(400) % 3, threshold=0.2)
        assert refusal(broken, precision, ANY) == "its answers are not numbers"


def test_records_of_earlier_releases_are_read(copied: Path) -> None:
    record = read_json(copied / EXPORTS)
    new = read_exports(copied)
    assert all(export.seen is not None and export.seen.rows == record["rows"] for export in new)
    for export in record["exports"]:
        del export["seen"]
    write_json(copied / EXPORTS, record)
    assert [export.replaced(seen=None) for export in new] == read_exports(copied)


def test_no_rows_to_compare_on_is_one_line(own: Path, rows: pa.Table) -> None:
    with pytest.raises(InputError, match="no labeled rows on which to compare an export"):
        export_model(own, rows.slice(0, 0), ANY, EXACT, {})


def test_comparison_counts_labels_and_differences() -> None:
    exact = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.4, 0.5, 0.1]])
    other = exact.copy()
    other[3] = [0.6, 0.3, 0.1]
    parity = compare(exact.astype(np.float32), other.astype(np.float32), np.array([0, 1, 2, 1]))
    assert parity.max_difference == pytest.approx(0.2)
    assert parity.same_labels == 0.75
    assert parity.macro_f1_exact == 1
    assert parity.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
