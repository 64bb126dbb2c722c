"""The record of a gate: its rules, the rows it compared, and whether a model may be champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypedDict

from finsent.judgments import (
    CANNOT_TELL,
    INFERIOR,
    NOT_INFERIOR,
    Figures,
    Judgment,
    Outcome,
    Verdict,
)
from finsent.records import JsonObject

Owner = Literal["candidate", "champion", "both", "neither"]
Obstacle = Literal["champion", "dataset"]


@dataclass(frozen=True)
class GateSplit:
    """The judgment on one test split."""

    split_of: Owner  # owner of the test split's dataset version
    dataset_version: str | None
    judgment: Judgment
    verdict: Verdict | None = None  # of `compare`; None: the models could not be compared
    candidate: Figures | None = None
    champion: Figures | None = None
    flipped: int | None = None  # rows that the models label differently
    seen_in_training: dict[str, int | None] | None = None  # rows left out; None: unknown
    seen_in_validation: dict[str, int | None] | None = None  # rows left out; None: unknown
    unusable: Obstacle | None = None  # reason against a judgment; None: judged, or too few rows


class GateBrief(TypedDict):
    """Outcome and rules of a gate, for lists and the service's /info."""

    outcome: Outcome
    forced: bool
    against: str
    margin: float
    min_rows: int
    weakened: list[str]


@dataclass(frozen=True)
class Gate:
    """Whether a model may replace the champion."""

    against: str  # the champion's version
    outcome: Outcome
    forced: bool  # published only because of publish.force
    reason: str
    margin: float
    min_rows: int
    weakened: list[str]  # descriptions of rules that are weaker than the defaults
    resamples: int
    seed: int
    splits: list[GateSplit]

    def as_json(self) -> JsonObject:
        """Return the record as manifest and alias contain it."""
        return asdict(self)

    def brief(self) -> GateBrief:
        """Return the outcome and the rules."""
        return {
            "outcome": self.outcome,
            "forced": self.forced,
            "against": self.against,
            "margin": self.margin,
            "min_rows": self.min_rows,
            "weakened": self.weakened,
        }


@dataclass(frozen=True)
class Clearance:
    """Permission to move an alias to a version, valid until another process moves the alias."""

    replaces: str | None  # the alias's version when the gate judged; None: no version
    gate: Gate | None = None  # None: no comparison was needed


def overall(splits: Sequence[GateSplit]) -> tuple[Outcome, str]:
    """Return the outcome on all test splits, with its reason.

    The error rate needs no correction for several splits: a model must pass each of them.
    """
    for outcome in (INFERIOR, CANNOT_TELL, NOT_INFERIOR):
        decisive = [split for split in splits if split.judgment.outcome == outcome]
        if decisive:
            return outcome, "; ".join(map(_reason, decisive))
    raise ValueError("no test split")


_OWNERS = {
    "candidate": "the model's own test split",
    "champion": "the champion's test split",
    "both": "the test split of both",
    "neither": "the test split",
}


def _reason(split: GateSplit) -> str:
    """Return the reason of a judgment, with the test split that it is on."""
    version = f" ({split.dataset_version})" if split.dataset_version else ""
    return f"{_OWNERS[split.split_of]}{version}: {split.judgment.reason}"
