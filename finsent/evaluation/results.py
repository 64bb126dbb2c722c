"""Results of the jobs that measure, compare and calibrate models: JSON on stdout."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from finsent.errors import InputError
from finsent.evaluation.comparison_record import (
    AllRows,
    ComparedModel,
    ComparisonRecord,
    Differences,
    McNemar,
    ModelName,
)
from finsent.inference.truncation_record import TruncationRecord
from finsent.judgments import Judgment, Verdict
from finsent.metrics_record import (
    HEADLINE,
    METRICS_FILE,
    Abstention,
    AgreementLevel,
    Behavior,
    CalibrationEffect,
    CalibrationName,
    EvaluationMetrics,
    Headline,
    Intervals,
    LabelScores,
    NoiseCeiling,
    OverlapCounts,
    OverlapFigures,
    PublishableMetrics,
    StoredScores,
)
from finsent.modeling.domain_record import DomainMetrics, ExportAnswers, Figure


@dataclass(frozen=True)
class EvaluateResult:
    """Result of `evaluate`; `metrics.json` also has the curves, slices, mistakes and cases."""

    model_dir: str
    model_version: Annotated[str | None, "null: not published"]
    domain_calibration: Annotated[CalibrationName | None, "name, id; null: the model's own"]
    dataset_version: str | None
    split: str | None
    sources: tuple[str, ...]
    rows: int
    accuracy: float
    macro_f1: float
    macro_over: Annotated[tuple[str, ...], "labels with rows"]
    weighted_f1: float
    mcc: float | None
    auroc: float | None
    log_loss: Annotated[float | None, "null, as brier and ece: a probability is not a number"]
    brier: float | None
    ece: float | None
    labels: Annotated[
        dict[str, LabelScores], "precision, recall, f1, support, auroc; null: no rows"
    ]
    confusion: Annotated[tuple[tuple[int, ...], ...], "rows: true, columns: predicted"]
    intervals: Annotated[Intervals, "95 %, by figure"]
    noise_ceiling: NoiseCeiling | None
    agreement: Annotated[tuple[AgreementLevel, ...], "accuracy by the annotators' agreement"]
    baselines: dict[str, StoredScores]
    calibration: CalibrationEffect
    abstention: Annotated[
        Abstention, "holds: whether these rows reach the wanted accuracy; null: not known"
    ]
    behavior: Annotated[Behavior | None, "cases, failed; null: not run"]
    seen_in_training: int | None
    overlap: Annotated[
        OverlapFigures,
        "rows that the model was trained on, near copies of them, and figures on the other rows, "
        "or the reason why that is not known",
    ]
    truncation: Annotated[TruncationRecord, "texts cut, tokens left out"]
    rows_per_second: float
    report_dir: str

    @property
    def headline(self) -> Headline:
        """Number of rows and overall figures by name."""
        return {name: getattr(self, name) for name in (*HEADLINE, "rows")}

    @classmethod
    def of(cls, metrics: EvaluationMetrics, report_dir: Path) -> EvaluateResult:
        """Return the result of an evaluation, without the long lists of its metrics."""
        values = metrics.brief()
        keys = [field.name for field in fields(cls) if field.name != "report_dir"]
        return cls(**{key: getattr(values, key) for key in keys}, report_dir=str(report_dir))


@dataclass(frozen=True)
class CompareResult:
    """Result of `compare`: model B compared with model A."""

    verdict: Annotated[Verdict, "better, worse or no difference"]
    rows: int
    macro_over: Annotated[tuple[str, ...], "labels with rows"]
    a: Annotated[ComparedModel, "accuracy, macro_f1, model_dir"]
    b: ComparedModel
    difference: Annotated[Differences, "B - A: value, interval"]
    mcnemar: Annotated[McNemar, "only_a, only_b: rows that only this model has right; p_value"]
    flipped: Annotated[int, "rows with another label"]
    judgment: Annotated[
        Judgment, "outcome, reason, rows, absent_labels, accuracy, macro_f1: value and bound"
    ]
    what: Annotated[str, "name of the rows"]
    calibration: str | None
    dataset_version: str | None
    seen_in_training: Annotated[
        dict[ModelName, int | None], "rows left out, by model; null: unknown"
    ]
    seen_in_validation: Annotated[dict[ModelName, int | None], "the same"]
    overlap: Annotated[
        dict[ModelName, OverlapCounts],
        "by model: rows that the model was trained on, near copies of them that remain, or the "
        "reason why that is not known",
    ]
    with_seen: Annotated[
        AllRows | None, "figures with the rows left out; null: no row was left out"
    ]
    truncation: Annotated[dict[ModelName, TruncationRecord], "by model"]
    comparison_dir: str

    @classmethod
    def of(cls, comparison: ComparisonRecord, comparison_dir: Path) -> CompareResult:
        """Return the result of a comparison."""
        return cls(**dict(comparison), comparison_dir=str(comparison_dir))


@dataclass(frozen=True)
class CalibrationSummary:
    """A published calibration for a domain, without its long lists."""

    name: str
    id: str
    created: str
    model_version: str
    temperature: float
    biases: Annotated[dict[str, float], "by label"]
    threshold: Annotated[float, "1: the model abstains from every row"]
    wanted_accuracy: float
    rows: int
    texts: Annotated[int, "rows, where near copies count as one"]
    rows_by_label: dict[str, int]
    folds: Annotated[int, "of the cross-validation"]
    before: Annotated[
        DomainMetrics,
        "macro_f1, accuracy, log_loss, ece, answered: value, interval; coverage",
    ]
    after: Annotated[DomainMetrics, "the same, cross-validated"]
    log_loss_difference: Figure
    fitted_with: Annotated[str, "form of the model"]
    exports: Annotated[
        dict[str, ExportAnswers],
        "by kept form: same_labels and same_abstentions, shares of the rows",
    ]
    refusal: Annotated[str | None, "why a forced calibration would have been refused"]
    previous: Annotated[tuple[str, ...], "ids"]


@dataclass(frozen=True)
class CalibrateResult(CalibrationSummary):
    """Result of `calibrate`: a published calibration for a domain."""

    file: str


def read_metrics(model: str, model_dir: Path) -> PublishableMetrics:
    """Read the metrics that `ray_jobs.evaluate` wrote of a run's model.

    Args:
        model: the setting `publish.model`, for messages.

    Raises:
        InputError: the model is not measured, or the file is damaged.
    """
    report = model_dir.parent / "evaluation" / METRICS_FILE
    if not report.is_file():
        raise InputError(
            f"publish.model={model!r}: has no {report}. Measure it first with "
            f"`python -m ray_jobs.evaluate evaluate.model={model_dir.parent}`."
        )
    return PublishableMetrics.read(report)
