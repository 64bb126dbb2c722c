"""Metrics from confusion matrices and from probabilities.

Confusion matrices of several workers add up. Figures from probabilities are computed under many
weightings of the rows at once, which makes resampling cheap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from finsent.labels import LABELS
from finsent.metrics_record import LabelScores, MatrixScores, ReliabilityBin, Scores

Counts = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BINS = 15  # of the reliability figures, as in Guo et al. 2017
_MIN_PROBABILITY = float(np.finfo(np.float32).eps)  # in the log loss


# --- from a confusion matrix --------------------------------------------------------------------


def confusion(truth: Counts, predicted: Counts) -> Counts:
    """Return counts by (true id, predicted id), shape (labels, labels)."""
    size = len(LABELS)
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def scores(matrix: Counts) -> MatrixScores:
    """Return accuracy, F1 (macro, weighted by support), MCC and the figures of each label.

    `macro_f1` is the mean over the labels that have rows (`macro_over`), as in scikit-learn's
    `f1_score(labels=np.unique(truth), average="macro", zero_division=0)`. The recall and F1 of a
    label without rows are None, and so is its precision unless the label was predicted.

    Args:
        matrix: from `confusion`.
    """
    hits = matrix.diagonal().astype(float)
    support, predicted = matrix.sum(1), matrix.sum(0)
    precision, recall, f1 = _ratio(hits, predicted), _ratio(hits, support), f1_by_label(matrix)
    over = with_rows(support)
    return MatrixScores(
        **{name: float(value) for name, value in matrix_figures(matrix, over).items()},
        macro_over=tuple(LABELS[i] for i in over),
        rows=int(matrix.sum()),
        labels={
            label: LabelScores(
                precision=float(precision[i]) if support[i] or predicted[i] else None,
                recall=float(recall[i]) if support[i] else None,
                f1=float(f1[i]) if support[i] else None,
                support=int(support[i]),
            )
            for i, label in enumerate(LABELS)
        },
        confusion=tuple(tuple(map(int, row)) for row in matrix),
    )


def with_rows(support: npt.NDArray[Any]) -> list[int]:
    """Return the ids of the labels that have rows; without rows, the ids of all labels."""
    return [int(i) for i in np.flatnonzero(support)] or [*range(len(LABELS))]


def matrix_figures(matrices: npt.NDArray[Any], over: list[int] | None = None) -> dict[str, Floats]:
    """Return the overall figures of confusion matrices, each of shape (...).

    MCC is Gorodkin's for several classes (2004, doi:10.1016/j.compbiolchem.2004.09.006), 0 when
    truth or predictions hold one label only.

    Args:
        matrices: shape (..., labels, labels); counts, or sums of weights.
        over: ids of the labels whose F1 makes up the macro-F1; None: all.
    """
    matrices = np.asarray(matrices, float)
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    support, predicted = matrices.sum(-1), matrices.sum(-2)
    total, right = support.sum(-1), hits.sum(-1)
    f1 = f1_by_label(matrices)
    spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (support**2).sum(-1))
    return {
        "accuracy": _ratio(right, total),
        "macro_f1": (f1 if over is None else f1[..., over]).mean(-1),
        "weighted_f1": _ratio((f1 * support).sum(-1), total),
        "mcc": _ratio(right * total - (support * predicted).sum(-1), np.sqrt(spread)),
    }


def f1_by_label(matrices: npt.NDArray[Any]) -> Floats:
    """Return the F1 of each label, shape (..., labels); 0: neither present nor predicted.

    Args:
        matrices: shape (..., labels, labels); counts, or sums of weights.
    """
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    return _ratio(2 * hits, matrices.sum(-1) + matrices.sum(-2))


def _ratio(count: npt.NDArray[Any], total: npt.NDArray[Any]) -> Floats:
    """Return the ratios by element; 0 where the total is 0."""
    ratios = np.zeros(np.broadcast_shapes(np.shape(count), np.shape(total)))
    np.divide(count, total, out=ratios, where=np.asarray(total) > 0)
    return ratios


# --- from probabilities -------------------------------------------------------------------------


def bin_of(confidence: Floats) -> Ids:
    """Return the bin of each confidence; bin i is (i / BINS, (i+1) / BINS]."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


class Answers:
    """A model's probabilities and the true labels, prepared for many weightings of the rows."""

    def __init__(self, truth: Ids, probabilities: npt.NDArray[Any]) -> None:
        """Compute the addend of each row to each figure.

        Args:
            truth: label ids, shape (rows,).
            probabilities: shape (rows, labels); rows sum to 1.
        """
        self.truth = truth
        self.probabilities = np.asarray(probabilities, np.float64)
        self.predicted: Ids = self.probabilities.argmax(1).astype(np.int64)
        self.confidence: Floats = self.probabilities.max(1)
        self.right = self.predicted == truth
        size, rows = len(LABELS), np.arange(len(truth))
        # Of all rows: macro-F1 is over the same labels in a resample without a rare label.
        self.macro_over = with_rows(np.bincount(truth, minlength=size))
        true_probabilities = self.probabilities[rows, truth]
        cells = np.zeros((len(truth), size * size))
        cells[rows, truth * size + self.predicted] = 1
        gaps = np.zeros((len(truth), BINS))
        gaps[rows, bin_of(self.confidence)] = self.right - self.confidence
        log_loss = -np.log(np.clip(true_probabilities, _MIN_PROBABILITY, 1))
        brier = ((self.probabilities - np.eye(size)[truth]) ** 2).sum(1)
        self._addends = np.column_stack([cells, gaps, log_loss, brier])
        self._ranked = [self._rank(label) for label in range(size)]

    def _rank(self, label: int) -> tuple[Ids, npt.NDArray[np.bool_], Ids]:
        """Return rows by rising probability of a label, flags of its rows, and starts of ties."""
        order = np.argsort(self.probabilities[:, label], kind="stable").astype(np.int64)
        ranked = self.probabilities[order, label]
        starts = np.flatnonzero(np.r_[True, ranked[1:] > ranked[:-1]]) if len(order) else order
        return order, self.truth[order] == label, starts.astype(np.int64)

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """Return the `HEADLINE` figures under each weighting; NaN: the AUROC is undefined.

        - log loss: the mean of -ln(probability of the true label), in nats.
        - Brier: the mean over rows of the squared distance to the truth, summed over labels: 0 to 2
          (Brier 1950).
        - ECE: sum over `BINS` bins of (rows in the bin / rows) x |accuracy - mean confidence|,
          by the confidence of the predicted label (Guo et al. 2017, arXiv:1706.04599, equation 3).
        - macro-F1: the mean over the labels that have rows in `truth`, whatever the weights.
        - AUROC: the mean over labels, each against the rest; labels without rows are left out.

        Args:
            weights: of the rows, shape (weightings, rows).

        Returns:
            Arrays of shape (weightings,).
        """
        size = len(LABELS) ** 2
        sums = weights @ self._addends
        total = weights.sum(1)
        figures = matrix_figures(
            sums[:, :size].reshape(-1, len(LABELS), len(LABELS)), self.macro_over
        )
        aurocs = self.aurocs(weights)
        defined = ~np.isnan(aurocs)
        means = _ratio(np.where(defined, aurocs, 0).sum(1), defined.sum(1))
        figures["auroc"] = np.where(defined.any(1), means, np.nan)
        figures["log_loss"] = _ratio(sums[:, -2], total)
        figures["brier"] = _ratio(sums[:, -1], total)
        figures["ece"] = _ratio(np.abs(sums[:, size : size + BINS]).sum(1), total)
        return figures

    def aurocs(self, weights: Floats) -> Floats:
        """Return the AUROC of each label against the other labels, shape (weightings, labels).

        The chance that a row of the label has a higher probability of the label than another row,
        ties counted as half (Mann-Whitney). NaN where all rows or no rows have the label.
        """
        columns = []
        for order, has_label, starts in self._ranked:
            ranked = weights[:, order]
            inside = np.where(has_label, ranked, 0)
            outside = ranked - inside
            if len(starts) < len(order):  # ties count together
                inside = np.add.reduceat(inside, starts, axis=1)
                outside = np.add.reduceat(outside, starts, axis=1)
            below = np.cumsum(outside, axis=1) - outside / 2
            pairs = inside.sum(1) * outside.sum(1)
            pairs_won = np.einsum("ij,ij->i", inside, below)
            columns.append(np.where(pairs > 0, _ratio(pairs_won, pairs), np.nan))
        return np.column_stack(columns)

    def measure(self) -> Scores:
        """Return `scores`, all `HEADLINE` figures and each label's `auroc`; None: undefined."""
        weights = np.ones((1, len(self.truth)))
        measured = scores(confusion(self.truth, self.predicted))
        figures = self.figures(weights)
        aurocs = dict(zip(LABELS, self.aurocs(weights)[0], strict=True))
        return Scores(
            accuracy=measured.accuracy,
            macro_f1=measured.macro_f1,
            weighted_f1=measured.weighted_f1,
            mcc=measured.mcc,
            macro_over=measured.macro_over,
            rows=measured.rows,
            labels={
                label: figures_of.replaced(auroc=number(aurocs[label]))
                for label, figures_of in measured.labels.items()
            },
            confusion=measured.confusion,
            auroc=number(figures["auroc"][0]),
            log_loss=number(figures["log_loss"][0]),
            brier=number(figures["brier"][0]),
            ece=number(figures["ece"][0]),
        )

    def where(self, mask: npt.NDArray[np.bool_]) -> Answers:
        """Return the answers to some of the rows."""
        return Answers(self.truth[mask], self.probabilities[mask])

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Return rows, mean confidence and accuracy of each confidence bin; None: no row."""
        bins = bin_of(self.confidence)
        rows = np.bincount(bins, minlength=BINS)
        confidence = np.bincount(bins, self.confidence, BINS)
        right = np.bincount(bins, self.right.astype(float), BINS)
        return tuple(
            ReliabilityBin(
                low=i / BINS,
                high=(i + 1) / BINS,
                rows=int(count),
                confidence=float(confidence[i] / count) if count else None,
                accuracy=float(right[i] / count) if count else None,
            )
            for i, count in enumerate(rows)
        )


def number(value: float) -> float | None:
    """Return a number for JSON: None in place of NaN."""
    return None if np.isnan(value) else float(value)
