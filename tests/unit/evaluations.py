"""Records of evaluations and comparisons, for tests."""

from __future__ import annotations

from typing import Any

from finsent.evaluation.comparison_record import ComparisonRecord
from finsent.inference.truncation_record import TruncationRecord
from finsent.judgments import not_judged
from finsent.metrics_record import EvaluationMetrics, Scores


def truncation(
    max_length: int, rows: int, cut: int, tokens: int, left_out: int
) -> TruncationRecord:
    """Return the record with the shares that follow from the counts."""
    return TruncationRecord(
        max_length=max_length,
        rows=rows,
        cut=cut,
        tokens=tokens,
        left_out=left_out,
        cut_share=cut / rows,
        left_out_share=left_out / tokens,
    )


def evaluation(scores: Scores, **parts: Any) -> EvaluationMetrics:
    """Return an evaluation with these scores, in which nothing else was measured."""
    return EvaluationMetrics.model_validate(
        {
            **dict(scores),
            "intervals": {},
            "baselines": {},
            "calibration": {"temperature": 1.0, "ece_before": 0.1, "ece_after": 0.1},
            "abstention": {"threshold": None, "reason": "the model was never calibrated"},
            "agreement": [],
            "overlap": {"rows": 0, "near_copies": 0, "reason": None, "unseen": None},
            "truncation": truncation(128, 400, 0, 8000, 0),
            "rows_per_second": 10.0,
            **parts,
        }
    )


def comparison(**parts: Any) -> ComparisonRecord:
    """Return a comparison of two models without a difference."""
    zero = {"value": 0.0, "interval": (0.0, 0.0)}
    model = {"accuracy": 0.9, "macro_f1": 0.9, "model_dir": "model"}
    return ComparisonRecord.model_validate(
        {
            "rows": 80,
            "macro_over": ["negative", "neutral", "positive"],
            "a": model,
            "b": model,
            "difference": {"accuracy": zero, "macro_f1": zero},
            "mcnemar": {"only_a": 0, "only_b": 0, "p_value": 1.0},
            "flipped": 0,
            "verdict": "no difference",
            "judgment": not_judged("a test"),
            "overlap": {name: {"rows": 0, "near_copies": 0, "reason": None} for name in "ab"},
            "with_seen": None,
            "truncation": {name: truncation(8, 10, 0, 70, 0) for name in "ab"},
            "what": "rows",
            "calibration": None,
            "dataset_version": None,
            "seen_in_training": {"a": 0, "b": 0},
            "seen_in_validation": {"a": 0, "b": 0},
            **parts,
        }
    )
