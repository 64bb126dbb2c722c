"""Types of HTTP answers, which also generate the OpenAPI document.

Answers are written from the typed dictionaries at the end: pydantic would take longer than the rest
of a request.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from pydantic import BaseModel, Field
from pydantic.config import JsonDict

from finsent.labels import LABELS
from serve_app.service.answer import Answer
from serve_app.service.explain import Explanation, WordWeight

LABEL: JsonDict = {"enum": [*LABELS]}


class Probabilities(BaseModel):
    """A probability per label; they sum to 1."""

    negative: float
    neutral: float
    positive: float


class PredictAnswer(BaseModel):
    """The answer for one text."""

    label: str = Field(json_schema_extra=LABEL)
    score: float = Field(description="probability of the label")
    probabilities: Probabilities
    polarity: float = Field(
        description="probability of positive minus that of negative, from -1 to 1", ge=-1, le=1
    )
    model_version: str
    calibration: str | None = Field(
        description="name of the calibration for the source; null: the model's own"
    )
    abstained: bool = Field(description="whether the score is below the model's threshold")
    truncated: bool = Field(description="whether a part of the text was cut")
    raw_scores: Probabilities | None = Field(
        None,
        description="calibrated logits, if requested; their softmax is the probabilities",
    )
    request_id: str


class ProblemAnswer(BaseModel):
    """A problem (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="stable, for programs")
    detail: str = Field(description="what is wrong and what to do, for people")
    request_id: str | None = None
    error: str | None = Field(None, description="the detail again, for Hugging Face's clients")
    error_type: str | None = Field(None, description="the kind of problem in TEI's words")


class PredictList(BaseModel):
    """Answers in the order of the texts; a text without an answer has a problem instead."""

    predictions: list[PredictAnswer | ProblemAnswer]
    model_version: str
    request_id: str


class Word(BaseModel):
    """A word, or a group of words in a long text, and its effect on the answer."""

    text: str
    start: int = Field(description="first character in the explained text")
    end: int = Field(description="the character after the last one")
    attribution: float = Field(
        description="probability that the label loses without the word; below 0: gains"
    )
    by_label: Probabilities = Field(description="the same for each label")


class ExplainAnswer(PredictAnswer):
    """The answer for a text, with the weights of its words."""

    text: str = Field(description="as the model reads it; start and end count its characters")
    words: list[Word]
    method: str


class LiveAnswer(BaseModel):
    """The process runs."""

    status: Literal["ok"]


class HealthAnswer(LiveAnswer):
    """The replica can answer; its load."""

    model_version: str
    queue_tokens: float = Field(description="tokens that wait or are being computed")
    drain_seconds: float = Field(description="seconds that they will take at the measured rate")
    requests: int = Field(description="requests in progress, including this one")


class Classifier(BaseModel):
    """The labels of a classifier, in TEI's form."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(BaseModel):
    """The kind of model, in TEI's form."""

    classifier: Classifier


class TeiInfo(BaseModel):
    """The fields of TEI's /info."""

    model_id: str = Field(description="alias or version that the service follows")
    model_sha: str | None = Field(description="the model version")
    model_dtype: str = Field(description="number format of the weights")
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int = Field(description="the same as max_length")
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool = Field(description="whether long `inputs` are cut by default: false")
    tokenization_workers: int
    version: str = Field(description="version of finsent")
    sha: str | None
    docker_label: str | None


class CalibrationInfo(BaseModel):
    """A calibration for a domain."""

    name: str
    id: str = Field(description="digest; another calibration of the same name has another id")
    threshold: float = Field(description="the model abstains below this score; above 1: always")
    sources: list[str] = Field(description="names of the files that the calibration was fitted on")
    rows: int = Field(description="number of rows that the calibration was fitted on")


class InfoAnswer(TeiInfo):
    """The model and the limits; there may be more fields."""

    model: str = Field(description="alias or version that the service follows")
    model_version: str
    labels: list[str]
    max_length: int = Field(description="tokens per text; longer texts are cut")
    temperature: float = Field(description="divisor of the logits; raw_scores are divided already")
    threshold: float | None = Field(description="the model abstains below this score")
    calibrations: dict[str, CalibrationInfo | None] = Field(
        description="by the tag that requests send as source; null: the model's own"
    )
    backend: str
    device: str
    user_config_refused: str | None = Field(
        description="why the last `user_config` was refused; null: it is in use"
    )
    limits: dict[str, int | float]


class AnswerBody(TypedDict):
    """`PredictAnswer` as it is written."""

    label: str
    score: float
    probabilities: dict[str, float]
    polarity: float
    model_version: str
    calibration: str | None
    abstained: bool
    truncated: bool
    request_id: str
    raw_scores: NotRequired[dict[str, float]]


class ExplanationBody(AnswerBody):
    """`ExplainAnswer` as it is written."""

    text: str
    words: list[WordWeight]
    method: str


def answer_body(answer: Answer, raw_scores: bool, request_id: str) -> AnswerBody:
    """Return the answer for one text as JSON."""
    prediction = answer.prediction
    body: AnswerBody = {
        "label": prediction.label,
        "score": prediction.score,
        "probabilities": prediction.probabilities,
        "polarity": prediction.polarity,
        "model_version": answer.model_version,
        "calibration": answer.calibration,
        "abstained": prediction.abstained,
        "truncated": answer.truncated,
        "request_id": request_id,
    }
    if raw_scores:
        body["raw_scores"] = dict(zip(prediction.probabilities, answer.logits, strict=True))
    return body


def explain_body(explanation: Explanation, request_id: str) -> ExplanationBody:
    """Return the answer for one text, with the weights of its words, as JSON."""
    return {
        **answer_body(explanation.answer, False, request_id),
        "text": explanation.text,
        "words": explanation.words,
        "method": "occlusion",
    }
