"""Figures of a calibration for a domain on rows that it was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from finsent.evaluation.bootstrap import intervals, percentiles, resample_counts
from finsent.evaluation.domain_fit import fit
from finsent.evaluation.metrics import Answers, Floats, Ids
from finsent.inference.engine import softmax
from finsent.labels import LABELS
from finsent.modeling.domain_record import DomainMetrics, Figure


def fold_ids(truth: Ids, groups: Ids, folds: int) -> Ids:
    """Return the fold of each row: a group is in one fold, and labels are spread over all folds.

    Args:
        groups: of each row, from 0 without gaps. Its label is that of its first row.
    """
    _, first_rows, sizes = np.unique(groups, return_index=True, return_counts=True)
    order = np.lexsort((-sizes, truth[first_rows]))
    ids = np.empty(len(first_rows), np.int64)
    ids[order] = np.arange(len(first_rows)) % folds
    return ids[groups]


@dataclass(frozen=True)
class DomainAnswers:
    """Answers to rows, and the rows that the model does not abstain from."""

    answers: Answers
    answered: npt.NDArray[np.bool_]
    can_abstain: bool

    def measure(self, groups: Ids, resamples: int, seed: int) -> DomainMetrics:
        """Return the figures with their 95 % intervals.

        Args:
            groups: of each row. Near copies count as one row.
        """
        figures = self.answers.measure()
        bounds = intervals(self.answers, resamples, seed, groups)
        right = self.answers.right[self.answered]
        return DomainMetrics(
            **{
                name: Figure(value=getattr(figures, name), interval=bounds[name])
                for name in ("macro_f1", "accuracy", "log_loss", "ece")
            },
            coverage=float(self.answered.mean()) if self.can_abstain else None,
            answered=wilson_share(
                int(right.sum()), len(right), len(np.unique(groups[self.answered]))
            ),
        )


def wilson_share(hits: int, rows: int, groups: int) -> Figure:
    """Return a share with its 95 % Wilson interval (1927); undefined without rows.

    Args:
        groups: number of groups of near copies, which is the sample size of the interval.
    """
    if not rows:
        return Figure(value=None, interval=None)
    bounds = binomtest(round(groups * hits / rows), groups).proportion_ci(0.95, "wilson")
    return Figure(value=hits / rows, interval=(float(bounds.low), float(bounds.high)))


def judge_own_calibration(logits: Floats, truth: Ids, threshold: float | None) -> DomainAnswers:
    """Judge the version's own calibration.

    Args:
        threshold: None: the model never abstains.
    """
    return judge_probabilities(truth, softmax(logits, 1.0), np.full(len(truth), threshold, float))


def judge_probabilities(
    truth: Ids, probabilities: npt.NDArray[Any], thresholds: Floats
) -> DomainAnswers:
    """Judge probabilities.

    Args:
        thresholds: of each row; NaN: the model never abstains.
    """
    answers = Answers(truth, probabilities)
    return DomainAnswers(
        answers, ~(answers.confidence < thresholds), not bool(np.isnan(thresholds).all())
    )


def cross_validate(
    logits: Floats, truth: Ids, groups: Ids, folds: int, wanted_accuracy: float
) -> DomainAnswers:
    """Judge calibrations on rows that they were not fitted on, fold by fold.

    The rows of a fold are judged by the calibration of all other folds. Neither a row nor a near
    copy of it takes part in fitting the calibration that it is judged by.
    """
    ids = fold_ids(truth, groups, folds)
    probabilities = np.zeros((len(truth), len(LABELS)), np.float32)
    thresholds = np.zeros(len(truth))
    for fold in range(folds):
        inside = ids == fold
        calibration = fit(logits[~inside], truth[~inside], wanted_accuracy)
        probabilities[inside] = calibration.probabilities(logits[inside])
        thresholds[inside] = calibration.threshold
    return judge_probabilities(truth, probabilities, thresholds)


def log_loss_difference(
    before: Answers, after: Answers, groups: Ids, resamples: int, seed: int
) -> Figure:
    """Return the log loss after a calibration minus before, with its paired bootstrap interval.

    Args:
        groups: of each row. Near copies are drawn together.
    """
    once = np.ones((1, len(before.truth)))
    [value] = after.figures(once)["log_loss"] - before.figures(once)["log_loss"]
    drawn = [
        after.figures(counts)["log_loss"] - before.figures(counts)["log_loss"]
        for counts in resample_counts(len(before.truth), resamples, seed, groups)
    ]
    low, high = percentiles(np.concatenate(drawn)) or (np.nan, np.nan)
    return Figure(value=float(value), interval=(low, high))
