"""Whether an export answers as the model does: the gate that each has to pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finsent.evaluation.metrics import Answers, Ids
from finsent.inference.config import ExportConfig


@dataclass(frozen=True)
class Parity:
    """How an export's answers compare with those of torch in fp32, on the same rows."""

    max_difference: float  # of any probability
    same_labels: float  # share of the rows
    macro_f1: float
    macro_f1_exact: float


def compare(exact: npt.NDArray[np.float32], found: npt.NDArray[np.float32], truth: Ids) -> Parity:
    """Compare probabilities, both of shape (rows, labels).

    Args:
        exact: of torch in fp32.
        found: of the export.
        truth: label ids, shape (rows,).
    """
    return Parity(
        max_difference=float(np.abs(exact - found).max()),
        same_labels=float((exact.argmax(1) == found.argmax(1)).mean()),
        macro_f1=float(Answers(truth, found).measure()["macro_f1"]),
        macro_f1_exact=float(Answers(truth, exact).measure()["macro_f1"]),
    )


def refusal(parity: Parity, precision: str, config: ExportConfig) -> str | None:
    """Why an export may not be used, with the numbers; None: it may.

    Answers that are no numbers fail each comparison.
    """
    if precision == "fp32":
        if parity.max_difference <= config.max_difference:
            return None
        return (
            f"a probability differs by {parity.max_difference:.1e}, at most "
            f"{config.max_difference:.1e} is allowed (export.max_difference)"
        )
    lost = parity.macro_f1_exact - parity.macro_f1
    if not lost <= config.max_f1_loss:
        return (
            f"macro-F1 falls from {parity.macro_f1_exact:.4f} to {parity.macro_f1:.4f}, at most "
            f"{config.max_f1_loss} may be lost (export.max_f1_loss)"
        )
    if not parity.same_labels >= config.min_same_labels:
        return (
            f"{parity.same_labels:.2%} of the labels stay the same, at least "
            f"{config.min_same_labels:.2%} must (export.min_same_labels)"
        )
    return None
