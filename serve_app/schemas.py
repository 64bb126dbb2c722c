"""What requests and answers look like: checked on the way in, documented for both ways."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finsent.labels import LABELS
from serve_app.problems import Problem
from serve_app.service import Answer

Truncate = Literal["right", "left", "error"]
_LABEL: dict[str, Any] = {"enum": [*LABELS]}


def _one_of_them(schema: dict[str, Any]) -> None:
    """Say in the schema what `Api.predict` asks for: a value in one of three fields."""
    kinds = {"text": ["string"], "texts": ["array"], "inputs": ["string", "array"]}
    schema["oneOf"] = [
        {"required": [name], "properties": {name: {"type": kind}}} for name, kind in kinds.items()
    ]


class Strict(BaseModel):
    """Base of requests: unknown keys are errors, and nothing is turned into something else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PredictRequest(Strict):
    """One text, or a list of texts."""

    model_config = ConfigDict(json_schema_extra=_one_of_them)

    text: str | None = Field(None, description="the text to classify")
    texts: list[Any] | None = Field(
        None,
        description="texts to classify; one that is none gets an error in its place",
        json_schema_extra={"items": {"type": "string"}},
    )
    inputs: str | list[Any] | None = Field(
        None,
        description="in place of text or texts, answered as Hugging Face's "
        "text-embeddings-inference does: a string, or a list of strings or of lists of one string",
        json_schema_extra={
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {
                    "type": "array",
                    "items": {
                        "type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1
                    },
                },
                {"type": "null"},
            ]
        },
    )  # fmt: skip
    raw_scores: bool = Field(False, description="also give the logits")
    truncate: Truncate | bool | None = Field(
        None,
        description="side on which too long texts are cut, or error; with inputs true or false",
    )
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = Field(
        None, description="with inputs: the side on which truncate=true cuts"
    )
    parameters: dict[str, Any] | None = Field(
        None, description="with inputs: taken, and left aside, as Hugging Face's clients send it"
    )


class ExplainRequest(Strict):
    """One text whose label is explained."""

    text: str = Field(description="the text to explain")
    truncate: Truncate | None = Field(None, description="side on which a too long text is cut")


class Probabilities(BaseModel):
    """A probability by label; they sum to 1."""

    negative: float
    neutral: float
    positive: float


class PredictAnswer(BaseModel):
    """The answer for one text."""

    label: str = Field(json_schema_extra=_LABEL)
    score: float = Field(description="probability of the label")
    probabilities: Probabilities
    model_version: str
    abstained: bool = Field(description="the score is below the model's threshold")
    truncated: bool = Field(description="a part of the text was left out")
    raw_scores: Probabilities | None = Field(None, description="logits, where asked for")
    request_id: str


class ProblemAnswer(BaseModel):
    """A problem (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="stable: for programs")
    detail: str = Field(description="what to do: for people")
    request_id: str | None = None


class PredictList(BaseModel):
    """Answers in the order of the texts; in place of one a problem where there is one."""

    predictions: list[PredictAnswer | ProblemAnswer]
    model_version: str
    request_id: str


class TeiScore(BaseModel):
    """A label's probability, as text-embeddings-inference writes it."""

    label: str = Field(json_schema_extra=_LABEL)
    score: float


class Word(BaseModel):
    """A word, and what it does to the answer."""

    text: str
    start: int = Field(description="first character in `text`")
    end: int
    attribution: float = Field(
        description="the probability that the label loses without the word; below 0: gains"
    )
    by_label: Probabilities = Field(description="the same for each label")


class ExplainAnswer(PredictAnswer):
    """The answer for a text, with its words."""

    text: str = Field(description="as the model reads it: what start and end count in")
    words: list[Word]
    method: str


class LiveAnswer(BaseModel):
    """The process is there."""

    status: Literal["ok"]


class HealthAnswer(LiveAnswer):
    """It can answer; how much waits."""

    model_version: str
    queue_tokens: float = Field(description="tokens that wait or are computed")
    drain_seconds: float = Field(description="time that they will take, by the rate measured")
    requests: int = Field(description="at work now, this one included")


class InfoAnswer(BaseModel):
    """What answers here, and within which limits; there may be more fields."""

    model: str = Field(description="the alias or version that is followed")
    model_version: str
    labels: list[str]
    max_length: int = Field(description="tokens of a text; what is longer is cut")
    temperature: float = Field(description="that logits are divided by")
    threshold: float | None = Field(description="the score below which an answer is abstained")
    backend: str
    device: str
    user_config_refused: str | None = Field(
        description="why the last `user_config` is not used; null: it is"
    )
    limits: dict[str, int | float]


def parse(kind: type[BaseModel], body: bytes) -> Any:
    """Check a body.

    Raises:
        Problem: it is not JSON, or says something else than `kind`.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise Problem("invalid_json", first["msg"]) from None
        where = ".".join(str(part)[:100] for part in first["loc"][:2])  # keys are the client's own
        what = first["msg"]
        raise Problem("invalid_request", f"{where}: {what}" if where else what) from None


def answer_body(answer: Answer, raw_scores: bool, request_id: str) -> dict[str, Any]:
    """One text's answer as JSON."""
    prediction = answer.prediction
    found: dict[str, Any] = {
        "label": prediction.label,
        "score": prediction.score,
        "probabilities": prediction.probabilities,
        "model_version": answer.model_version,
        "abstained": prediction.abstained,
        "truncated": answer.truncated,
        "request_id": request_id,
    }
    if raw_scores:
        found["raw_scores"] = dict(zip(prediction.probabilities, answer.logits, strict=True))
    return found


def tei_body(answer: Answer, raw_scores: bool) -> list[dict[str, Any]]:
    """One text's answer as text-embeddings-inference gives it: all labels, the best first."""
    scores = (
        dict(zip(answer.prediction.probabilities, answer.logits, strict=True))
        if raw_scores
        else answer.prediction.probabilities
    )
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    return [{"label": label, "score": score} for label, score in ranked]


def explain_body(
    answer: Answer, text: str, words: list[dict[str, Any]], request_id: str
) -> dict[str, Any]:
    """One text's answer with its words as JSON."""
    return {
        **answer_body(answer, False, request_id),
        "text": text,
        "words": words,
        "method": "occlusion",
    }
