"""The outcome of a comparison of two models, as the registry records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finsent.estimates import Estimate

Outcome = Literal["not inferior", "inferior", "cannot tell"]
Verdict = Literal["better", "worse", "no difference"]

NOT_INFERIOR: Outcome = "not inferior"
INFERIOR: Outcome = "inferior"
CANNOT_TELL: Outcome = "cannot tell"


@dataclass(frozen=True)
class Figures:
    """A model's figures on the rows of a comparison."""

    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class Judgment:
    """Whether model B may replace model A, by their answers to the same rows."""

    outcome: Outcome
    reason: str
    rows: int
    absent_labels: list[str]  # labels without a row; macro-F1 is over the other labels
    accuracy: Estimate | None  # B minus A; None: the models could not be compared
    macro_f1: Estimate | None


def not_judged(reason: str) -> Judgment:
    """Return the judgment on models that could not be compared."""
    return Judgment(CANNOT_TELL, reason, 0, [], None, None)
