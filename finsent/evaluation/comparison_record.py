"""The comparison of two models, as `comparison.json` stores it. Imports no NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finsent.inference.truncation_record import TruncationRecord
from finsent.judgments import Figures, Judgment, Verdict
from finsent.metrics_record import Interval, OverlapCounts
from finsent.records import Record

ModelName = Literal["a", "b"]


@dataclass(frozen=True)
class Difference:
    """A figure of model B minus that of model A."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Differences:
    """Figures of model B minus those of model A."""

    accuracy: Difference
    macro_f1: Difference


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test, two-sided."""

    only_a: int  # rows that model A alone has right
    only_b: int
    p_value: float


@dataclass(frozen=True)
class ComparedModel(Figures):
    """A model and its figures on the compared rows."""

    model_dir: str


@dataclass(frozen=True)
class AllRows:
    """Figures on all rows, including rows that a model was trained or validated on."""

    rows: int
    a: Figures
    b: Figures


class ComparisonRecord(Record):
    """The content of `comparison.json`: model B compared with model A on the same rows."""

    rows: int
    macro_over: tuple[str, ...]  # labels with rows
    a: ComparedModel
    b: ComparedModel
    difference: Differences
    mcnemar: McNemar
    flipped: int  # rows that the models label differently
    verdict: Verdict  # on B
    judgment: Judgment  # whether B may replace A
    overlap: dict[ModelName, OverlapCounts]
    with_seen: AllRows | None  # None: no row was left out
    truncation: dict[ModelName, TruncationRecord]
    what: str  # name of the rows
    calibration: str | None  # of both models, for a domain
    dataset_version: str | None
    seen_in_training: dict[ModelName, int | None]  # rows left out; None: not known
    seen_in_validation: dict[ModelName, int | None]
