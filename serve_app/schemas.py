"""What requests and answers look like: checked on the way in, documented for both ways."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from finsent.labels import LABELS
from serve_app.problems import Problem
from serve_app.service import Answer

Truncate = Literal["right", "left", "error"]
_NULL: dict[str, Any] = {"type": "null"}
_LABEL: dict[str, Any] = {"enum": [*LABELS]}
_MAX_ERRORS = 1000


SOURCE = "tag of the texts' source, which picks a calibration of serve.calibrations"


class Strict(BaseModel):
    """Base of requests: unknown keys are errors, and nothing is turned into something else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Parameters(Strict):
    """What the clients of Hugging Face's hub may ask for: all of it is done, or refused."""

    top_k: int | None = Field(None, description="labels of each answer, the best first", ge=1)
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None,
        description="softmax, the default: calibrated probabilities; none: the logits; sigmoid: of "
        "each logit by itself",
    )
    truncation: bool | None = Field(None, description="the same as truncate")

    @model_validator(mode="before")
    @classmethod
    def _other_tasks(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("candidate_labels") is not None:
            raise PydanticCustomError(
                "labels",
                "candidate_labels: the labels are {labels}. Leave candidate_labels out.",
                {"labels": ", ".join(LABELS)},
            )
        return value


class TeiOptions(BaseModel):
    """What text-embeddings-inference and the hub's API take next to `inputs`.

    Unknown keys are left aside, as they do: clients send `options`, `normalize` or `prompt_name`.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    source: str | None = Field(None, description=SOURCE)
    raw_scores: bool = Field(False, description="give logits: with inputs in place of the scores")
    truncate: Truncate | bool | None = Field(
        None,
        description="side on which too long texts are cut, or error; with inputs true or false",
    )
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = Field(
        None,
        description="with inputs: the side on which truncate=true cuts",
        # Small letters are accepted, too: the description leaves them out, as generators make one
        # constant of both.
        json_schema_extra={"anyOf": [{"type": "string", "enum": ["Left", "Right"]}, _NULL]},
    )
    parameters: Parameters | None = Field(None, description="with inputs: the hub's parameters")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        asked = self.parameters
        function = asked.function_to_apply if asked else None
        if self.raw_scores and function not in (None, "none"):
            raise PydanticCustomError(
                "scores",
                "raw_scores=true: parameters.function_to_apply={function} wants other "
                "scores. Leave one of the two out.",
                {"function": function},
            )
        truncation = asked.truncation if asked else None
        if truncation is not None and self.truncate not in (None, truncation):
            raise PydanticCustomError(
                "truncation",
                "truncate: parameters.truncation wants the contrary. Leave one of the two out.",
            )
        return self

    @property
    def function(self) -> str:
        """What is applied to the logits: softmax, sigmoid or none."""
        asked = self.parameters.function_to_apply if self.parameters else None
        return asked or ("none" if self.raw_scores else "softmax")

    @property
    def policy(self) -> Truncate:
        """What becomes of too long texts. The default is text-embeddings-inference's: an error."""
        cut = self.truncate
        if cut is None and self.parameters is not None:
            cut = self.parameters.truncation
        if isinstance(cut, str):
            return cut
        if not cut:
            return "error"
        return "left" if self.truncation_direction in ("Left", "left") else "right"


_INPUTS: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
    ]
}


class TeiRequest(TeiOptions):
    """A text, or a list of texts."""

    inputs: str | list[Any] = Field(
        title="TeiInputs",  # generators name the type by it
        description="a string, or a list of strings or of lists of one string",
        json_schema_extra=_INPUTS,
    )


class PredictRequest(TeiOptions):
    """One text, or a list of texts: in one of the fields text, texts and inputs.

    With `text` and `texts` unknown keys are errors.
    """

    text: str | None = Field(None, description="the text to classify")
    texts: list[Any] | None = Field(
        None,
        description="texts to classify; one that is none gets an error in its place",
        json_schema_extra={"anyOf": [{"type": "array", "items": {"type": "string"}}, _NULL]},
    )
    inputs: str | list[Any] | None = Field(
        None,
        title="PredictInputs",
        description="in place of text or texts, answered as Hugging Face's "
        "text-embeddings-inference does: a string, or a list of strings or of lists of one string",
        json_schema_extra={"anyOf": [*_INPUTS["anyOf"], _NULL]},
    )

    def form(self) -> str:
        """Return which of the three fields has the text.

        Raises:
            Problem: none or several of them, or options that go with another one.
        """
        given = [name for name in ("text", "texts", "inputs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise Problem("invalid_request", "give one of text, texts and inputs")
        if given == ["inputs"]:
            return "inputs"
        for name in self.model_extra or {}:
            raise Problem("invalid_request", f"{name[:100]}: unknown. See /docs for the fields.")
        for name in ("truncation_direction", "parameters"):
            if getattr(self, name) is not None:
                raise Problem("invalid_request", f"{name}: goes with inputs only")
        if isinstance(self.truncate, bool):
            raise Problem("invalid_request", "truncate: write right, left or error")
        return given[0]


class ExplainRequest(Strict):
    """One text whose label is explained."""

    text: str = Field(description="the text to explain")
    truncate: Truncate | None = Field(None, description="side on which a too long text is cut")
    source: str | None = Field(None, description=SOURCE)


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
    polarity: float = Field(
        description="probability of positive less that of negative, from -1 to 1", ge=-1, le=1
    )
    model_version: str
    calibration: str | None = Field(
        description="name of the one for the source; null: the model's own"
    )
    abstained: bool = Field(description="the score is below the model's threshold")
    truncated: bool = Field(description="a part of the text was left out")
    raw_scores: Probabilities | None = Field(
        None,
        description="logits, where asked for; their softmax is the probabilities, as they are "
        "divided by the temperature, and with a calibration those after it",
    )
    request_id: str


class ProblemAnswer(BaseModel):
    """A problem (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="stable: for programs")
    detail: str = Field(description="what to do: for people")
    request_id: str | None = None
    error: str | None = Field(None, description="the detail, for Hugging Face's clients")
    error_type: str | None = Field(None, description="the kind, as TEI has it")


class PredictList(BaseModel):
    """Answers in the order of the texts; in place of one a problem where there is one."""

    predictions: list[PredictAnswer | ProblemAnswer]
    model_version: str
    request_id: str


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


class Classifier(BaseModel):
    """The labels of a classifier, as TEI has them."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(BaseModel):
    """What kind of model it is, as TEI has it."""

    classifier: Classifier


class TeiInfo(BaseModel):
    """What TEI's /info says."""

    model_id: str = Field(description="the alias or version that is followed")
    model_sha: str | None = Field(description="the model version")
    model_dtype: str = Field(description="number format of weights and products")
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int = Field(description="the same as max_length")
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool = Field(description="whether too long `inputs` are cut unasked: false")
    tokenization_workers: int
    version: str = Field(description="of finsent")
    sha: str | None
    docker_label: str | None


class CalibrationInfo(BaseModel):
    """A calibration for a domain."""

    name: str
    id: str = Field(description="changes with each calibration that gets the name")
    threshold: float = Field(
        description="the score below which an answer is abstained; above 1: each answer is"
    )
    sources: list[str] = Field(description="names of the files that it was fitted on")
    rows: int = Field(description="that it was fitted on")


class InfoAnswer(TeiInfo):
    """What answers here, and within which limits; there may be more fields."""

    model: str = Field(description="the alias or version that is followed")
    model_version: str
    labels: list[str]
    max_length: int = Field(description="tokens of a text; what is longer is cut")
    temperature: float = Field(
        description="that divides what the weights give; raw scores are divided by it already"
    )
    threshold: float | None = Field(description="the score below which an answer is abstained")
    calibrations: dict[str, CalibrationInfo | None] = Field(
        description="by the tag that requests give as source; null: the model's own"
    )
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
        if error.error_count() > _MAX_ERRORS:  # `errors` makes an object of each
            raise Problem(
                "invalid_request", f"{error.error_count()} errors. See /docs for the fields."
            ) from None
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
        "polarity": prediction.polarity,
        "model_version": answer.model_version,
        "calibration": answer.calibration,
        "abstained": prediction.abstained,
        "truncated": answer.truncated,
        "request_id": request_id,
    }
    if raw_scores:
        found["raw_scores"] = dict(zip(prediction.probabilities, answer.logits, strict=True))
    return found


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
