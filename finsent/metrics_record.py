"""The figures of an evaluation, as `metrics.json` and the manifest of a model version store them.

Imports no NumPy: jobs describe their results by these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import ConfigDict

from finsent.inference.truncation_record import TruncationRecord
from finsent.modeling.risk_coverage import CurvePoint
from finsent.records import SparseRecord

METRICS_FILE = "metrics.json"

Interval = tuple[float, float]  # 95 %: low, high
# By figure; None: the figure is undefined in each resample.
Intervals = dict[str, Interval | None]
# Number of rows and overall figures, by name; None: undefined.
Headline = Mapping[str, float | None]

HEADLINE = ("accuracy", "macro_f1", "weighted_f1", "mcc", "auroc", "log_loss", "brier", "ece")


class _Figures(SparseRecord):
    """Figures that finsent wrote. Keys that only another version of finsent writes are kept."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about damaged figures."""
        return "Evaluate the model again."

    def without(self, *names: str) -> Self:
        """Return a copy in which some keys are not set."""
        set_names = self.model_fields_set.difference(names)
        return type(self).model_validate({name: getattr(self, name) for name in set_names})


# --- scores -------------------------------------------------------------------------------------


class LabelScores(_Figures):
    """Figures of one label."""

    precision: float | None = None  # None: the label has no rows and was never predicted
    recall: float | None = None  # None: the label has no rows, as f1
    f1: float | None = None
    support: int  # rows with the label
    auroc: float | None = None  # None: all rows or no rows have the label


class StoredScores(_Figures):
    """Figures of answers to labeled rows, as far as they were measured."""

    accuracy: float | None = None
    macro_f1: float | None = None
    weighted_f1: float | None = None
    mcc: float | None = None
    macro_over: tuple[str, ...] | None = None  # labels with rows, over which macro-F1 is the mean
    rows: int | None = None
    labels: dict[str, LabelScores] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None  # counts by true and predicted label
    auroc: float | None = None
    log_loss: float | None = None
    brier: float | None = None
    ece: float | None = None


class MatrixScores(StoredScores):
    """Figures that a confusion matrix determines."""

    accuracy: float
    macro_f1: float
    weighted_f1: float
    mcc: float
    macro_over: tuple[str, ...]
    rows: int
    labels: dict[str, LabelScores]
    confusion: tuple[tuple[int, ...], ...]


class Scores(MatrixScores):
    """All figures of answers to labeled rows; None: a probability is not a number."""

    log_loss: float | None
    brier: float | None
    ece: float | None


class ReliabilityBin(_Figures):
    """Answers whose confidence is above `low` and at most `high`."""

    low: float
    high: float
    rows: int
    confidence: float | None  # mean; None: no row
    accuracy: float | None


# --- calibration and abstention -----------------------------------------------------------------


class CalibrationOrigin(_Figures):
    """The rows that a calibration was fitted on, and its effect on them."""

    dataset_version: str | None = None
    split: str | None = None
    rows: int | None = None
    reason: str | None = None  # why the temperature is 1
    ece_before: float | None = None
    ece_after: float | None = None


class CalibrationEffect(_Figures):
    """The calibration of a model, and its effect on the evaluated rows."""

    name: str | None = None  # of the calibration for a domain; None: the model's own
    temperature: float | None = None
    biases: dict[str, float] | None = None  # by label; None: the model's own calibration
    ece_before: float | None = None
    ece_after: float | None = None
    log_loss_before: float | None = None
    log_loss_after: float | None = None
    fitted_on: CalibrationOrigin | None = None  # None: the model was never calibrated


class Promise(_Figures):
    """Whether the answered rows reach the wanted accuracy."""

    answered: int | None = None  # rows
    interval: Interval | None = None  # of the accuracy of the answered rows
    # None: the accuracy is below the wanted one, but may be so by chance; or none is promised.
    holds: bool | None = None


class Abstention(Promise):
    """Coverage and accuracy at the model's threshold."""

    wanted_accuracy: float | None = None  # None: no accuracy is promised
    threshold: float | None = None  # None: the model never abstains
    reason: str | None = None  # why there is no threshold, or why it abstains from every row
    coverage: float | None = None  # share of rows answered
    accuracy: float | None = None  # of the answered rows
    curve: tuple[CurvePoint, ...] | None = None  # risk-coverage


# --- parts of the rows --------------------------------------------------------------------------


class PartScores(_Figures):
    """Figures of a part of the rows."""

    rows: int
    accuracy: float
    interval: Interval  # of accuracy, Wilson's
    macro_f1: float
    macro_over: tuple[str, ...] | None = None  # labels with rows in the part


class Slice(PartScores):
    """Figures of the rows that a criterion puts into one part."""

    slice: str  # name of the criterion
    value: str  # name of the part
    difference: float  # of accuracy, to all rows
    small: bool  # has too few rows to judge


class AgreementLevel(PartScores):
    """Figures of the rows of one level of the annotators' agreement."""

    level: str
    annotators: float  # mean share of annotators that gave the label


class UnseenScores(_Figures):
    """Figures of the rows that the model was not trained on."""

    rows: int
    macro_over: tuple[str, ...] | None = None
    accuracy: float
    macro_f1: float
    intervals: Intervals


class OverlapCounts(SparseRecord):
    """Rows that a model was trained on."""

    rows: int | None  # None: not known
    near_copies: int | None = None  # that are not among `rows`; None: not searched
    reason: str | None = None  # why a number is not known


class OverlapFigures(OverlapCounts):
    """Evaluated rows that a model was trained on, and the figures of the other rows."""

    unseen: UnseenScores | None = None  # None: no row was seen, or all rows were


# --- behavior -----------------------------------------------------------------------------------


class BehaviorExample(_Figures):
    """A failing case of a behavior suite."""

    texts: tuple[str, ...]
    expected: str
    got: str
    probabilities: tuple[dict[str, float], ...]  # by label, of each text


class BehaviorGroup(_Figures):
    """Cases of one group of a behavior suite."""

    group: str
    kind: str
    about: str | None = None
    cases: int
    failed: int
    failure_rate: float
    examples: tuple[BehaviorExample, ...] = ()  # failing cases by falling confidence


class Behavior(_Figures):
    """Cases of a behavior suite."""

    cases: int
    failed: int
    failure_rate: float
    groups: tuple[BehaviorGroup, ...] | None = None  # in the suite's order


# --- the evaluation -----------------------------------------------------------------------------


class NoiseCeiling(_Figures):
    """Best accuracy that a deterministic classifier can reach."""

    rows_in: float | None = None  # on all rows that were read
    kept: float


class CalibrationName(_Figures):
    """A published calibration for a domain."""

    name: str
    id: str


class Mistake(_Figures):
    """A row with a wrong answer."""

    key: str | None = None
    text: str
    label: str
    source: str | None = None
    row: int | None = None
    predicted: str
    score: float  # confidence


class EvaluatedModel(_Figures):
    """The model and the rows of an evaluation."""

    model_dir: str | None = None
    model_version: str | None = None  # None: not published
    domain_calibration: CalibrationName | None = None
    dataset_version: str | None = None
    split: str | None = None
    sources: tuple[str, ...] | None = None


class StoredMetrics(StoredScores, EvaluatedModel):
    """An evaluation, as any version of finsent stored it, with or without its long lists."""

    intervals: Intervals | None = None
    noise_ceiling: NoiseCeiling | None = None
    baselines: dict[str, StoredScores] | None = None  # by name
    calibration: CalibrationEffect | None = None
    reliability: tuple[ReliabilityBin, ...] | None = None
    reliability_before: tuple[ReliabilityBin, ...] | None = None  # the calibration
    abstention: Abstention | None = None
    slices: tuple[Slice, ...] | None = None  # the worst first
    agreement: tuple[AgreementLevel, ...] | None = None  # the lowest first
    behavior: Behavior | None = None  # None: the suite was not run
    seen_in_training: int | None = None  # rows; None: not known
    overlap: OverlapFigures | None = None
    truncation: TruncationRecord | None = None
    rows_per_second: float | None = None
    mistakes: tuple[Mistake, ...] | None = None  # by falling confidence

    @property
    def headline(self) -> Headline:
        """Number of rows and overall figures by name."""
        return {name: getattr(self, name) for name in (*HEADLINE, "rows")}

    @property
    def is_measured(self) -> bool:
        """Whether there is any figure; False: the model was not measured."""
        return bool(self.model_fields_set)

    @property
    def missing(self) -> list[str]:
        """Names of the figures that the registry shows and that are not known."""
        card_fields = PublishableMetrics.model_fields
        return [
            name
            for name, field in card_fields.items()
            if field.is_required() and getattr(self, name) is None
        ]

    def brief(self) -> Self:
        """Return the figures without their long lists: bins, mistakes, slices, curve and groups."""
        parts: dict[str, _Figures] = {}
        if self.abstention is not None:
            parts["abstention"] = self.abstention.without("curve")
        if self.behavior is not None:
            parts["behavior"] = self.behavior.without("groups")
        long = ("reliability", "reliability_before", "mistakes", "slices")
        return self.replaced(**parts).without(*long)


class PublishableMetrics(StoredMetrics):
    """An evaluation with the figures that the registry shows of a model version."""

    rows: int
    accuracy: float
    macro_f1: float
    labels: dict[str, LabelScores]


class EvaluationMetrics(Scores, StoredMetrics):
    """A complete evaluation."""

    intervals: Intervals
    baselines: dict[str, StoredScores]  # empty: none was measured
    calibration: CalibrationEffect
    abstention: Abstention
    agreement: tuple[AgreementLevel, ...]  # empty: no row's agreement is known
    overlap: OverlapFigures
    truncation: TruncationRecord
    rows_per_second: float
