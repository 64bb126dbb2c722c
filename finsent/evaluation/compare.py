"""Compare two models on the same rows: figures, their differences, and a verdict.

Paired bootstrap of the differences (Efron & Tibshirani 1993; for text classifiers Berg-Kirkpatrick
et al. 2012, https://aclanthology.org/D12-1091) and McNemar's exact test (McNemar 1947).
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finsent.evaluation.bootstrap import percentiles, resample_counts
from finsent.evaluation.calibration import label_ids
from finsent.evaluation.caveats import over_labels
from finsent.evaluation.comparison_record import (
    AllRows,
    ComparisonRecord,
    Difference,
    Differences,
    McNemar,
)
from finsent.evaluation.metrics import Answers, Floats, matrix_figures
from finsent.files import staged_dir
from finsent.inference.engine import Engine
from finsent.inference.truncation import count_truncation
from finsent.inference.truncation_record import TruncationRecord
from finsent.judgments import Figures, Verdict
from finsent.labels import LABELS

RESULT = "comparison.json"
FLIPPED = "flipped.parquet"
_FIGURES: tuple[Literal["accuracy", "macro_f1"], ...] = ("accuracy", "macro_f1")
_SIGNIFICANCE = 0.05
_MIN_FLIPPED = 6  # with five rows, even 5 to 0 has p = 0.0625


@dataclass(frozen=True)
class Comparison:
    """Model B compared with model A on the same rows."""

    rows: int
    macro_over: tuple[str, ...]  # labels with rows
    a: Figures
    b: Figures
    difference: Differences
    mcnemar: McNemar
    flipped: int  # rows that the models label differently
    verdict: Verdict  # on B

    @property
    def line(self) -> str:
        """The figures behind the verdict in one line."""
        macro_f1 = f"macro-F1{over_labels(self.macro_over)}"
        figures = (
            _figure_line(macro_f1, self.a.macro_f1, self.b.macro_f1, self.difference.macro_f1),
            _figure_line("accuracy", self.a.accuracy, self.b.accuracy, self.difference.accuracy),
        )
        return (
            f"{self.verdict} on {self.rows} rows: {', '.join(figures)}, {self.mcnemar.only_b} "
            f"rows newly right, {self.mcnemar.only_a} newly wrong (McNemar p = "
            f"{self.mcnemar.p_value:.3g})"
        )

    @property
    def worse(self) -> str | None:
        """The figures where B is worse; None: B is not worse."""
        return self.line if self.verdict == "worse" else None


def _figure_line(name: str, a: float, b: float, difference: Difference) -> str:
    low, high = difference.interval
    return (
        f"{name} {b:.3f} against {a:.3f} ({difference.value:+.3f}, 95 % interval {low:+.3f} to "
        f"{high:+.3f})"
    )


def answers_of(engine: Engine, rows: pa.Table) -> Answers:
    """Return a model's answers to labeled rows (`text`, `label`)."""
    return read_answers(engine, rows)[0]


def read_answers(engine: Engine, rows: pa.Table) -> tuple[Answers, TruncationRecord]:
    """Return a model's answers to labeled rows, and the truncation of the texts.

    Raises:
        InputError: the answers are not numbers.
    """
    encoded = engine.encode_checked(rows["text"].to_pylist())
    logits = engine.logits_of_rows([text.ids for text in encoded])
    engine.check_numbers(logits)
    answers = Answers(label_ids(rows), engine.calibrated(logits))
    return answers, count_truncation(encoded, engine.max_length)


def with_seen(a: Answers, b: Answers) -> AllRows:
    """Return the figures on all rows, including rows that a model was trained on."""
    return AllRows(len(a.truth), _figures(a), _figures(b))


def _figures(answers: Answers) -> Figures:
    measured = answers.measure()
    return Figures(measured.accuracy, measured.macro_f1)


def compare(a: Answers, b: Answers, resamples: int, seed: int) -> Comparison:
    """Compare model B with model A on the same rows, with 95 % intervals, and judge B.

    The verdict is `better` or `worse` if all of these hold:

    - McNemar's test has p < 0.05, or the interval of the macro-F1 difference excludes 0.
    - The two do not point in opposite directions.
    - At least 6 rows have another label: no exact test distinguishes fewer rows from chance.

    Else the verdict is `no difference`: these rows show none. In simulation (227 rows, both models
    right on 85 %, 1,500 pairs) equal models got `better` or `worse` in 6 %, half of them `worse`.

    Args:
        a: answers of the present model.
        b: answers of the model that would replace it.
        resamples: of the rows, the same resamples for both models.
        seed: of the resampling.
    """
    figures_a, figures_b = _figures(a), _figures(b)
    drawn = _drawn_differences(a, b, resamples, seed)
    difference = Differences(
        **{
            name: Difference(
                getattr(figures_b, name) - getattr(figures_a, name),
                percentiles(drawn[name]) or (math.nan, math.nan),
            )
            for name in _FIGURES
        }
    )
    test, count = mcnemar(a, b), int((a.predicted != b.predicted).sum())
    return Comparison(
        len(a.truth),
        tuple(LABELS[i] for i in a.macro_over),
        figures_a,
        figures_b,
        difference,
        test,
        count,
        _verdict(test, difference.macro_f1, count),
    )


def _drawn_differences(a: Answers, b: Answers, resamples: int, seed: int) -> dict[str, Floats]:
    """Return B minus A by figure, each of shape (resamples,)."""
    size = len(LABELS)
    cells = [np.eye(size * size)[answers.truth * size + answers.predicted] for answers in (a, b)]
    blocks: dict[str, list[Floats]] = {name: [] for name in _FIGURES}
    for counts in resample_counts(len(a.truth), resamples, seed):
        drawn_a, drawn_b = (
            matrix_figures((counts @ c).reshape(-1, size, size), a.macro_over) for c in cells
        )
        for name in _FIGURES:
            blocks[name].append(drawn_b[name] - drawn_a[name])
    return {name: np.concatenate(block) for name, block in blocks.items()}


def mcnemar(a: Answers, b: Answers) -> McNemar:
    """Return McNemar's exact test.

    If both models were equally good, each would have right half of the rows that one model alone
    has right.
    """
    # One second to import, which jobs without a comparison do without.
    from scipy.stats import binomtest

    only_a, only_b = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
    discordant = only_a + only_b
    p_value = float(binomtest(only_b, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_a, only_b, p_value)


def _verdict(test: McNemar, macro_f1: Difference, flipped_rows: int) -> Verdict:
    low, high = macro_f1.interval
    signs = set()
    if test.p_value < _SIGNIFICANCE:
        signs.add(1 if test.only_b > test.only_a else -1)
    if low > 0 or high < 0:
        signs.add(1 if low > 0 else -1)
    if len(signs) != 1 or flipped_rows < _MIN_FLIPPED:
        return "no difference"
    return "better" if signs == {1} else "worse"


def flipped(rows: pa.Table, a: Answers, b: Answers) -> pa.Table:
    """Return the rows that the models label differently, new mistakes of B first.

    Returns:
        `key`, `text`, `label` (and `source`, `row` where `rows` has them), `a_predicted`,
        `a_score`, `b_predicted`, `b_score`.
    """
    indices = np.flatnonzero(a.predicted != b.predicted)
    gain = b.right[indices].astype(int) - a.right[indices].astype(int)
    indices = indices[np.lexsort((-b.confidence[indices], gain))]
    columns = [c for c in ("key", "text", "label", "source", "row") if c in rows.column_names]
    table = rows.select(columns).take(pa.array(indices))
    names = np.array(LABELS)
    for name, answers in (("a", a), ("b", b)):
        predicted = pa.array(names[answers.predicted[indices]], pa.string())
        scores = pa.array(answers.confidence[indices], pa.float32())
        table = table.append_column(f"{name}_predicted", predicted)
        table = table.append_column(f"{name}_score", scores)
    return table


def write_comparison(comparison: ComparisonRecord, flips: pa.Table, out: Path) -> None:
    """Write `comparison.json` and `flipped.parquet`, and replace an existing directory."""
    shutil.rmtree(out, ignore_errors=True)
    with staged_dir(out) as staging:
        comparison.write(staging / RESULT)
        pq.write_table(flips, staging / FLIPPED)
