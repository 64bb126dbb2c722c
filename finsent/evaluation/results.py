"""Results of the jobs that measure, compare and calibrate models: JSON on stdout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from finsent.errors import InputError
from finsent.files import read_json


@dataclass(frozen=True)
class EvaluateResult:
    """Result of `evaluate`; `metrics.json` also has the curves, slices, mistakes and cases."""

    model_dir: str
    model_version: Annotated[str | None, "null: not published"]
    domain_calibration: Annotated[dict[str, str] | None, "name, id; null: the model's own"]
    dataset_version: str | None
    split: str | None
    sources: list[str]
    rows: int
    accuracy: float
    macro_f1: float
    macro_over: Annotated[list[str], "labels with rows"]
    weighted_f1: float
    mcc: float | None
    auroc: float | None
    log_loss: float
    brier: float
    ece: float
    labels: Annotated[
        dict[str, dict[str, Any]], "precision, recall, f1, support, auroc; null: no rows"
    ]
    confusion: Annotated[list[list[int]], "rows: true, columns: predicted"]
    intervals: Annotated[dict[str, Any], "95 %, by figure"]
    noise_ceiling: dict[str, float] | None
    agreement: Annotated[Any, "accuracy by the annotators' agreement"]
    baselines: dict[str, dict[str, Any]]
    calibration: dict[str, Any]
    abstention: Annotated[
        dict[str, Any], "holds: whether these rows reach the wanted accuracy; null: not known"
    ]
    behavior: Annotated[dict[str, Any] | None, "cases, failed; null: not run"]
    seen_in_training: int | None
    overlap: Annotated[
        dict[str, Any],
        "rows that the model was trained on, near copies of them, and figures on the other rows, "
        "or the reason why that is not known",
    ]
    truncation: Annotated[dict[str, Any], "texts cut, tokens left out"]
    rows_per_second: float
    report_dir: str


@dataclass(frozen=True)
class CompareResult:
    """Result of `compare`: model B compared with model A."""

    verdict: Annotated[str, "better, worse or no difference"]
    rows: int
    macro_over: Annotated[list[str], "labels with rows"]
    a: Annotated[dict[str, Any], "accuracy, macro_f1, model_dir"]
    b: dict[str, Any]
    difference: Annotated[dict[str, Any], "B - A: value, interval"]
    mcnemar: Annotated[
        dict[str, Any], "only_a, only_b: rows that only this model has right; p_value"
    ]
    flipped: Annotated[int, "rows with another label"]
    judgment: Annotated[
        dict[str, Any], "outcome, reason, rows, absent_labels, accuracy, macro_f1: value and bound"
    ]
    what: Annotated[str, "name of the rows"]
    calibration: str | None
    dataset_version: str | None
    seen_in_training: Annotated[dict[str, int | None], "rows left out, by model; null: unknown"]
    seen_in_validation: Annotated[dict[str, int | None], "the same"]
    overlap: Annotated[
        dict[str, Any],
        "by model: rows that the model was trained on, near copies of them that remain, or the "
        "reason why that is not known",
    ]
    with_seen: Annotated[
        dict[str, Any] | None, "figures with the rows left out; null: no row was left out"
    ]
    truncation: Annotated[dict[str, Any], "by model"]
    comparison_dir: str


@dataclass(frozen=True)
class CalibrateResult:
    """Result of `calibrate`: a published calibration for a domain."""

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
        dict[str, Any],
        "macro_f1, accuracy, log_loss, ece, answered: value, interval; coverage",
    ]
    after: Annotated[dict[str, Any], "the same, cross-validated"]
    log_loss_difference: dict[str, Any]
    fitted_with: Annotated[str, "form of the model"]
    exports: Annotated[
        dict[str, Any], "by kept form: same_labels and same_abstentions, shares of the rows"
    ]
    refusal: Annotated[str | None, "why a forced calibration would have been refused"]
    previous: Annotated[list[str], "ids"]
    file: str


def read_metrics(model: str, model_dir: Path) -> dict[str, Any]:
    """Read the metrics that `ray_jobs.evaluate` wrote of a run's model.

    Args:
        model: the setting `publish.model`, for messages.

    Raises:
        InputError: the model is not measured, or the file is damaged.
    """
    report = model_dir.parent / "evaluation" / "metrics.json"
    if not report.is_file():
        raise InputError(
            f"publish.model={model!r}: has no {report}; measure it first with "
            f"`python -m ray_jobs.evaluate evaluate.model={model_dir.parent}`"
        )
    metrics = read_json(report)
    if not isinstance(metrics, dict) or not metrics.keys() >= {"macro_f1", "accuracy", "labels"}:
        raise InputError(f"{report}: not an evaluation's metrics; evaluate the model again")
    return metrics
