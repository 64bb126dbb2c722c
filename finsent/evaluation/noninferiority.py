"""Non-inferiority: whether a model may replace another, by the same rows, within a margin.

`compare` answers another question: a difference that is not shown is not a proof of equality, least
of all on few rows. A model is not inferior when the lower ends of the one-sided 95 % intervals of
its differences in accuracy and in macro-F1 are above minus the margin (Piaggio et al. 2012, JAMA
308:2594, doi:10.1001/jama.2012.87802).

- Accuracy: Tango's score interval of paired proportions (1998, Statistics in Medicine 17:891).
  Where both models have the same rows right, a bootstrap's interval has no width. This one then
  ends at -z^2 / (rows + z^2), as Wilson's does.
- Macro-F1: a paired bootstrap within each true label. Each label adds half a row that model A alone
  has right and half a row that model B alone has right, after Agresti & Min (2005, Statistics in
  Medicine 24:729, doi:10.1002/sim.1781). Without these half rows, equal answers to the few rows
  of a label would count as certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finsent.estimates import Estimate
from finsent.evaluation.bootstrap import LEVEL
from finsent.evaluation.metrics import Answers, Floats, f1_by_label
from finsent.judgments import CANNOT_TELL, INFERIOR, NOT_INFERIOR, Judgment, Outcome
from finsent.labels import LABELS

_SIZE = len(LABELS)


@dataclass(frozen=True)
class Allowance:
    """What a model may lose, and how many rows must show it."""

    margin: float  # of accuracy and of macro-F1, as a fraction
    min_rows: int
    fields: tuple[str, str]  # settings of margin and min_rows, for messages


def judge(
    a: Answers, b: Answers, worse: str | None, allowance: Allowance, resamples: int, seed: int
) -> Judgment:
    """Judge model B by its answers and those of model A to the same rows.

    Args:
        worse: description of how `compare` shows that B is worse, which makes B inferior by
            whatever amount; None: not shown.
        resamples: of the bootstrap.
        seed: of the resampling.
    """
    rows = len(a.truth)
    accuracy = accuracy_difference(a, b)
    macro_f1 = macro_f1_difference(a, b, resamples, seed)
    present = np.isin(np.arange(_SIZE), a.truth)
    absent = [label for label, is_present in zip(LABELS, present, strict=True) if not is_present]
    outcome, reason = _outcome(worse, rows, accuracy, macro_f1, allowance)
    if absent:
        reason += f"; no row is {' or '.join(absent)}: not judged on this label"
    return Judgment(outcome, reason, rows, absent, accuracy, macro_f1)


def _outcome(
    worse: str | None, rows: int, accuracy: Estimate, macro_f1: Estimate, allowance: Allowance
) -> tuple[Outcome, str]:
    margin_field, rows_field = allowance.fields
    measured = f"accuracy {_described(accuracy)}, macro-F1 {_described(macro_f1)}"
    if worse:
        return INFERIOR, worse
    if rows < allowance.min_rows:
        return CANNOT_TELL, (
            f"{rows} rows that neither model was trained or validated on are too few; "
            f"{allowance.min_rows} are needed ({rows_field})"
        )
    if min(accuracy.bound, macro_f1.bound) > -allowance.margin:
        return NOT_INFERIOR, f"on {rows} rows {measured}, above -{allowance.margin:g}"
    needed = max(_rows_needed(change, rows, allowance.margin) for change in (accuracy, macro_f1))
    more = f"; about {needed:,} rows would decide" if math.isfinite(needed) else ""
    return CANNOT_TELL, (
        f"{rows} rows do not show that no more than {allowance.margin:g} is lost ({margin_field}): "
        f"{measured}{more}"
    )


def _described(difference: Estimate) -> str:
    return f"{difference.value:+.3f} (95 %: at least {difference.bound:+.3f})"


def _rows_needed(difference: Estimate, rows: int, margin: float) -> float:
    """Estimate the rows at which the bound would be within the margin, rounded up to two digits.

    The estimate assumes the measured difference, and an interval whose width falls with the root of
    the rows. Infinite: the difference itself is beyond the margin.
    """
    room = difference.value + margin
    if room <= 0:
        return math.inf
    exact = max(rows, rows * ((difference.value - difference.bound) / room) ** 2)
    digit = 10 ** max(0, math.floor(math.log10(exact)) - 1)
    return int(math.ceil(exact / digit) * digit)


def accuracy_difference(a: Answers, b: Answers) -> Estimate:
    """Return accuracy of model B minus model A, with its bound; without rows the bound is -1."""
    only_a, only_b = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
    rows = len(a.truth)
    value = (only_b - only_a) / rows if rows else 0.0
    return Estimate(value, paired_bound(only_a, only_b, rows))


def _normal_quantile() -> float:
    """Return the standard normal quantile of one-sided 95 %."""
    from scipy.stats import norm  # 0.8 s; wrong settings fail before

    return float(norm.ppf(LEVEL))


def paired_bound(only_a: int, only_b: int, rows: int) -> float:
    """Return the lower end of Tango's one-sided 95 % interval of accuracy, B minus A.

    Args:
        only_a: rows that model A alone has right.
        only_b: rows that model B alone has right.
        rows: all rows; without any the bound is -1.
    """
    from scipy.optimize import brentq  # 0.4 s; as above

    if not rows or only_a == rows:
        return -1.0
    quantile = _normal_quantile()
    bound = brentq(
        lambda difference: _score(only_a, only_b, rows, difference) - quantile,
        -1 + 1e-12,
        (only_b - only_a) / rows,
        xtol=1e-12,
    )
    return float(bound)


def _score(only_a: int, only_b: int, rows: int, difference: float) -> float:
    """Return Tango's statistic of a supposed difference: 0 at the observed one, rising below.

    Under the supposed difference, the most likely chance that model A alone is right is the larger
    root of a quadratic equation.
    """
    twice = 2 * rows
    linear = -only_a - only_b + (twice - only_b + only_a) * difference
    constant = -only_a * difference * (1 - difference)
    chance = (math.sqrt(max(linear**2 - 4 * twice * constant, 0)) - linear) / (2 * twice)
    variance = rows * (2 * chance + difference * (1 - difference))
    excess = only_b - only_a - rows * difference
    return excess / math.sqrt(variance) if variance > 0 else (math.inf if excess > 0 else 0.0)


def macro_f1_difference(a: Answers, b: Answers, resamples: int, seed: int) -> Estimate:
    """Return macro-F1 of model B minus model A, over the labels that the rows have, with its bound.

    Without rows the bound is -1.
    """
    cells = a.truth * _SIZE**2 + a.predicted * _SIZE + b.predicted
    counts = np.bincount(cells, minlength=_SIZE**3).reshape(_SIZE, _SIZE, _SIZE).astype(float)
    support = counts.sum((1, 2))
    is_present = support > 0
    if not is_present.any():
        return Estimate(0.0, -1.0)
    random = np.random.default_rng(seed)
    drawn = np.zeros((resamples, _SIZE, _SIZE**2))
    for label in range(_SIZE):
        if is_present[label]:
            weights = (counts[label] + _half_rows(label)).ravel()
            chances = weights / weights.sum()
            drawn[:, label] = random.multinomial(int(support[label]), chances, resamples)
    gains = _macro_f1_gain(drawn.reshape(-1, _SIZE, _SIZE, _SIZE), is_present)
    [value] = _macro_f1_gain(counts[None], is_present)
    return Estimate(float(value), float(np.percentile(gains, 100 * (1 - LEVEL))))


def _half_rows(label: int) -> Floats:
    """Return half a row that A alone has right, and half a row that B alone has right.

    Each is spread over the wrong labels. Shape (A's answer, B's answer).
    """
    extra = np.zeros((_SIZE, _SIZE))
    wrong = np.arange(_SIZE) != label
    extra[label, wrong] = extra[wrong, label] = 0.5 / (_SIZE - 1)
    return extra


def _macro_f1_gain(counts: Floats, is_present: npt.NDArray[np.bool_]) -> Floats:
    """Return macro-F1 of B minus A, shape (...), from counts by (truth, A, B)."""
    f1_a, f1_b = (f1_by_label(counts.sum(axis))[..., is_present] for axis in (-1, -2))
    return np.asarray(f1_b.mean(-1) - f1_a.mean(-1))
