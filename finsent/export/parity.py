"""The parity gate: compare the answers of an export with the model's, and refuse it if they differ.

An fp32 export computes the same, so its largest difference on any rows decides. A quantized export
is judged by what users notice, each figure by its bound with 95 % confidence, so that a single row
of a small split decides nothing. Too few rows to show that bound are a refusal: the fp32 forms give
the same answers, only slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finsent.estimates import Estimate
from finsent.evaluation.bootstrap import LEVEL
from finsent.evaluation.compare import compare as compare_models
from finsent.evaluation.metrics import Answers, Ids
from finsent.evaluation.noninferiority import accuracy_difference, macro_f1_difference
from finsent.export.config import ExportConfig
from finsent.inference.export_record import AnswerChanges

_RESAMPLES, _SEED = 1000, 0


@dataclass(frozen=True)
class Parity:
    """The differences of an export from torch in fp32 on the same rows."""

    max_difference: float  # of any probability
    same_labels: float  # share of the rows
    macro_f1: float
    macro_f1_exact: float
    changes: AnswerChanges


def compare(
    exact: npt.NDArray[np.float32],
    exported: npt.NDArray[np.float32],
    truth: Ids,
    threshold: float | None = None,
) -> Parity:
    """Compare the probabilities of at least one row, both of shape (rows, labels).

    Args:
        exact: of torch in fp32.
        exported: of the export.
        truth: label ids, shape (rows,).
        threshold: confidence below which the model abstains; None: it never abstains.
    """
    a, b = Answers(truth, exact), Answers(truth, exported)
    comparison = compare_models(a, b, _RESAMPLES, _SEED)
    is_same_label = a.predicted == b.predicted
    same_abstentions = None
    if threshold is not None:
        same_abstentions = share((a.confidence < threshold) == (b.confidence < threshold))
    return Parity(
        max_difference=float(np.abs(exact - exported).max()),
        same_labels=float(is_same_label.mean()),
        macro_f1=b.measure().macro_f1,
        macro_f1_exact=a.measure().macro_f1,
        changes=AnswerChanges(
            rows=len(truth),
            same_labels=share(is_same_label),
            same_abstentions=same_abstentions,
            score_change=_mean(np.abs(a.confidence - b.confidence)),
            accuracy=accuracy_difference(a, b),
            macro_f1=macro_f1_difference(a, b, _RESAMPLES, _SEED),
            worse=comparison.worse,
        ),
    )


def share(flags: npt.NDArray[np.bool_]) -> Estimate:
    """Return a share of rows with its exact lower bound (Clopper & Pearson 1934)."""
    # Jobs that only check the settings import this module; scipy.stats costs 0.5 s.
    from scipy.stats import binomtest

    test = binomtest(int(flags.sum()), len(flags), alternative="greater")
    return Estimate(float(flags.mean()), float(test.proportion_ci(LEVEL, method="exact").low))


def _mean(values: npt.NDArray[np.float64]) -> Estimate:
    """Return a mean with its upper bound (Student's t); for one row the bound is 1, the maximum."""
    # Jobs that only check the settings import this module; scipy.stats costs 0.5 s.
    from scipy.stats import t

    mean, rows = float(values.mean()), len(values)
    if rows < 2:
        return Estimate(mean, 1.0)
    error = float(values.std(ddof=1)) / rows**0.5
    return Estimate(mean, min(1.0, mean + float(t.ppf(LEVEL, rows - 1)) * error))


def refusal(parity: Parity, precision: str, config: ExportConfig) -> str | None:
    """Return the reason against an export, with the numbers; None: it may be used.

    Answers that are not finite fail each comparison.
    """
    if not np.isfinite(parity.max_difference):
        return "its answers are not numbers"
    if precision != "fp32":
        return _quantized_refusal(parity.changes, config)
    if parity.max_difference <= config.max_difference:
        return None
    return (
        f"a probability differs by {parity.max_difference:.1e}, at most "
        f"{config.max_difference:.1e} is allowed (export.max_difference)"
    )


def _quantized_refusal(changes: AnswerChanges, config: ExportConfig) -> str | None:
    return (
        _share_refusal(changes, "labels", changes.same_labels, config.min_same_labels)
        or _share_refusal(
            changes, "abstentions", changes.same_abstentions, config.min_same_abstentions
        )
        or _score_refusal(changes, config.max_score_change)
        or _quality_refusal(changes, config.max_f1_loss)
    )


def _share_refusal(
    changes: AnswerChanges, name: str, same: Estimate | None, minimum: float
) -> str | None:
    if same is None or same.bound >= minimum:
        return None
    return (
        f"{same.value:.2%} of the {name} stay the same (95 %: at least {same.bound:.2%}), "
        f"at least {minimum:.2%} must (export.min_same_{name})"
        f"{_too_few_rows(same.value >= minimum, changes)}"
    )


def _score_refusal(changes: AnswerChanges, maximum: float) -> str | None:
    change = changes.score_change
    if change.bound <= maximum:
        return None
    return (
        f"the confidence moves by {change.value:.4f} on average (95 %: at most "
        f"{change.bound:.4f}), at most {maximum:g} is allowed (export.max_score_change)"
        f"{_too_few_rows(change.value <= maximum, changes)}"
    )


def _quality_refusal(changes: AnswerChanges, max_loss: float) -> str | None:
    if max_loss == 1:
        return None
    if changes.worse:
        return f"its labels are {changes.worse}"
    for name, change in (("macro-F1", changes.macro_f1), ("accuracy", changes.accuracy)):
        if not change.bound >= -max_loss:
            return (
                f"{name} changes by {change.value:+.4f} (95 %: at least {change.bound:+.4f}), at "
                f"most {max_loss:g} may be lost (export.max_f1_loss)"
                f"{_too_few_rows(change.value >= -max_loss, changes)}"
            )
    return None


def _too_few_rows(is_met: bool, changes: AnswerChanges) -> str:
    """Return a clause for a figure that is good enough, whose bound is not."""
    return f"; {changes.rows} rows are too few to tell" if is_met else ""
