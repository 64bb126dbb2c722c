"""The record of a gate: whether a model may become champion, and on which rows that was judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finsent.judgments import (
    CANNOT_TELL,
    INFERIOR,
    NOT_INFERIOR,
    Figures,
    Judgment,
    Outcome,
    Verdict,
)

Owner = Literal["candidate", "champion", "both", "neither"]
Obstacle = Literal["champion", "dataset"]


@dataclass(frozen=True)
class GateSplit:
    """The judgment on one test split."""

    split_of: Owner  # whose dataset version the test split is of
    dataset_version: str | None
    judgment: Judgment
    verdict: Verdict | None = None  # of `compare`; None: the models could not be compared
    candidate: Figures | None = None
    champion: Figures | None = None
    flipped: int | None = None  # rows that the two label differently
    seen_in_training: dict[str, int | None] | None = None  # rows left out; None: unknown
    seen_in_validation: dict[str, int | None] | None = None  # likewise
    unusable: Obstacle | None = None  # why it could not be judged; None: it could, or lacks rows


@dataclass(frozen=True)
class Gate:
    """Whether a model may take the champion's place."""

    against: str  # the champion's version
    outcome: Outcome
    forced: bool  # published only because of publish.force
    reason: str
    margin: float
    min_rows: int
    weakened: list[str]  # rules that were weaker than the defaults, in words
    resamples: int
    seed: int
    splits: list[GateSplit]

    def as_json(self) -> dict[str, Any]:
        """Return the record that manifest, alias and result of a job hold."""
        return asdict(self)


_BRIEF = ("outcome", "forced", "against", "margin", "min_rows", "weakened")


def brief_gate(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the main part of a stored record; values that an earlier release lacks are null."""
    return None if record is None else {key: record.get(key) for key in _BRIEF}


@dataclass(frozen=True)
class Clearance:
    """Leave to point an alias at a version, while the alias names what the version replaces."""

    replaces: str | None  # the version that the alias named when the gate judged; None: none
    gate: Gate | None = None  # None: nothing was to be compared


def overall(splits: Sequence[GateSplit]) -> tuple[Outcome, str]:
    """Return the outcome on all test splits, of which each must show that no more is lost.

    The error rate needs no correction for several splits: a model has to pass all of them.
    """
    for outcome in (INFERIOR, CANNOT_TELL, NOT_INFERIOR):
        decisive = [split for split in splits if split.judgment.outcome == outcome]
        if decisive:
            return outcome, "; ".join(_placed(split) for split in decisive)
    raise ValueError("no test split")


_OWNERS = {
    "candidate": "the model's own test split",
    "champion": "the champion's test split",
    "both": "the test split of both",
    "neither": "the test split",
}


def _placed(split: GateSplit) -> str:
    version = f" ({split.dataset_version})" if split.dataset_version else ""
    return f"{_OWNERS[split.split_of]}{version}: {split.judgment.reason}"
