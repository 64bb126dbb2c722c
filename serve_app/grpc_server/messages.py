"""Answers as messages of `proto/sentiment.proto`."""

from __future__ import annotations

from finsent.inference.config import Truncate
from finsent.labels import LABELS
from serve_app.problems import Problem
from serve_app.proto import sentiment_pb2 as pb
from serve_app.service.answer import Answer
from serve_app.service.explain import WordWeight

_TRUNCATE: dict[int, Truncate | None] = {
    pb.DEFAULT: None,
    pb.RIGHT: "right",
    pb.LEFT: "left",
    pb.ERROR: "error",
}


def truncate_policy(value: int) -> Truncate | None:
    """Return the side on which long texts are cut; None: the service's setting.

    Raises:
        Problem: the enum has no such value.
    """
    if value not in _TRUNCATE:
        raise Problem(
            "invalid_request", f"truncate={value}: not a side. Send RIGHT, LEFT or ERROR."
        )
    return _TRUNCATE[value]


def prediction(answer: Answer, raw_scores: bool) -> pb.Prediction:
    """Return an answer as a message, with its logits if `raw_scores`."""
    result = answer.prediction
    logits = dict(zip(LABELS, answer.logits, strict=True)) if raw_scores else None
    return pb.Prediction(
        label=pb.Label.Value(result.label.upper()),
        score=result.score,
        probabilities=pb.Probabilities(**result.probabilities),
        model_version=answer.model_version,
        abstained=result.abstained,
        truncated=answer.truncated,
        polarity=result.polarity,
        calibration=answer.calibration or "",
        raw_scores=None if logits is None else pb.Probabilities(**logits),
    )


def list_item(answer: Answer | Problem, raw_scores: bool) -> pb.PredictListResponse.Item:
    """Return an answer of a list, or the problem in its place, as a message."""
    if isinstance(answer, Problem):
        problem = pb.Problem(code=answer.code, detail=answer.detail)
        return pb.PredictListResponse.Item(problem=problem)
    return pb.PredictListResponse.Item(prediction=prediction(answer, raw_scores))


def word(weight: WordWeight) -> pb.Word:
    """Return the weight of a word as a message."""
    return pb.Word(
        text=weight.text,
        start=weight.start,
        end=weight.end,
        attribution=weight.attribution,
        by_label=pb.Probabilities(**weight.by_label),
    )
