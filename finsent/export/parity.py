"""Whether an export answers as the model does: the gate that each has to pass.

An fp32 export computes the same, so its largest difference on any rows tells. A quantized export is
judged by what users see, each with the bound that holds with 95 % confidence, so that one row more
or less on a small split decides nothing. Where the rows are too few to show it, it is refused: the
fp32 forms answer the same, only slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finsent.evaluation.bootstrap import LEVEL
from finsent.evaluation.compare import compare as compare_models
from finsent.evaluation.metrics import Answers, Ids
from finsent.evaluation.noninferiority import Estimate, accuracy_difference, macro_f1_difference
from finsent.inference.config import ExportConfig
from finsent.inference.exports import Seen

_RESAMPLES, _SEED = 1000, 0


@dataclass(frozen=True)
class Parity:
    """How an export's answers compare with those of torch in fp32, on the same rows."""

    max_difference: float  # of any probability
    same_labels: float  # share of the rows
    macro_f1: float
    macro_f1_exact: float
    seen: Seen


def compare(
    exact: npt.NDArray[np.float32],
    found: npt.NDArray[np.float32],
    truth: Ids,
    threshold: float | None = None,
) -> Parity:
    """Compare probabilities, both of shape (rows, labels), of at least one row.

    Args:
        exact: of torch in fp32.
        found: of the export.
        truth: label ids, shape (rows,).
        threshold: confidence below which the model abstains; None: it never does.
    """
    a, b = Answers(truth, exact), Answers(truth, found)
    compared = compare_models(a, b, _RESAMPLES, _SEED)
    same = a.predicted == b.predicted
    abstains = None if threshold is None else [one.confidence < threshold for one in (a, b)]
    return Parity(
        max_difference=float(np.abs(exact - found).max()),
        same_labels=float(same.mean()),
        macro_f1=float(b.measure()["macro_f1"]),
        macro_f1_exact=float(a.measure()["macro_f1"]),
        seen=Seen(
            rows=len(truth),
            same_labels=share(same),
            same_abstentions=None if abstains is None else share(abstains[0] == abstains[1]),
            score_change=_mean(np.abs(a.confidence - b.confidence)),
            accuracy=accuracy_difference(a, b),
            macro_f1=macro_f1_difference(a, b, _RESAMPLES, _SEED),
            worse=compared.worse,
        ),
    )


def share(flags: npt.NDArray[np.bool_]) -> Estimate:
    """Return a share of rows with its exact lower bound (Clopper & Pearson 1934)."""
    from scipy.stats import binomtest

    test = binomtest(int(flags.sum()), len(flags), alternative="greater")
    return Estimate(float(flags.mean()), float(test.proportion_ci(LEVEL, method="exact").low))


def _mean(values: npt.NDArray[np.float64]) -> Estimate:
    """Return a mean with its upper bound (Student's t); 1, the largest change, of a single row."""
    from scipy.stats import t

    mean, rows = float(values.mean()), len(values)
    if rows < 2:
        return Estimate(mean, 1.0)
    error = float(values.std(ddof=1)) / rows**0.5
    return Estimate(mean, min(1.0, mean + float(t.ppf(LEVEL, rows - 1)) * error))


def refusal(parity: Parity, precision: str, config: ExportConfig) -> str | None:
    """Return why an export may not be used, with the numbers; None: it may be.

    Answers that are no numbers fail each comparison.
    """
    if not np.isfinite(parity.max_difference):
        return "its answers are not numbers"
    if precision != "fp32":
        return _refusal_of_seen(parity.seen, config)
    if parity.max_difference <= config.max_difference:
        return None
    return (
        f"a probability differs by {parity.max_difference:.1e}, at most "
        f"{config.max_difference:.1e} is allowed (export.max_difference)"
    )


def _refusal_of_seen(seen: Seen, config: ExportConfig) -> str | None:
    shares = [
        ("labels", seen.same_labels, config.min_same_labels, "min_same_labels"),
        ("abstentions", seen.same_abstentions, config.min_same_abstentions, "min_same_abstentions"),
    ]
    for name, same, needed, field in shares:
        if same is not None and not same.bound >= needed:
            return (
                f"{same.value:.2%} of the {name} stay the same (95 %: at least {same.bound:.2%}), "
                f"at least {needed:.2%} must (export.{field}){_open(same.value >= needed, seen)}"
            )
    moved, most = seen.score_change, config.max_score_change
    if not moved.bound <= most:
        return (
            f"the confidence moves by {moved.value:.4f} on average (95 %: at most "
            f"{moved.bound:.4f}), at most {most:g} is allowed (export.max_score_change)"
            f"{_open(moved.value <= most, seen)}"
        )
    if config.max_f1_loss == 1:
        return None
    if seen.worse:
        return f"its labels are {seen.worse}"
    for name, change in (("macro-F1", seen.macro_f1), ("accuracy", seen.accuracy)):
        if not change.bound >= -config.max_f1_loss:
            return (
                f"{name} changes by {change.value:+.4f} (95 %: at least {change.bound:+.4f}), at "
                f"most {config.max_f1_loss:g} may be lost (export.max_f1_loss)"
                f"{_open(change.value >= -config.max_f1_loss, seen)}"
            )
    return None


def _open(is_met: bool, seen: Seen) -> str:
    """Say where only the number of rows is what lacks."""
    return f"; {seen.rows} rows are too few to tell" if is_met else ""
