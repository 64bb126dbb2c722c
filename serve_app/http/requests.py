"""Types of HTTP requests, which also generate the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from finsent.inference.config import Truncate
from finsent.labels import LABELS
from serve_app.problems import Problem

Request = TypeVar("Request", bound=BaseModel)
_NULL: JsonValue = {"type": "null"}
_MAX_ERRORS = 1000

SOURCE = "tag of the source of the texts, which selects a calibration of serve.calibrations"


class Strict(BaseModel):
    """Base of requests: unknown keys are errors, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Parameters(Strict):
    """Parameters of clients of Hugging Face's hub: each is applied, or refused."""

    top_k: int | None = Field(None, description="labels per answer, the most probable first", ge=1)
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None,
        description="softmax, the default: calibrated probabilities; none: logits; sigmoid: the "
        "sigmoid of each logit",
    )
    truncation: bool | None = Field(None, description="the same as truncate")
    candidate_labels: SkipJsonSchema[Any] = None  # of another task of the hub

    @field_validator("candidate_labels")
    @classmethod
    def _refuse_other_tasks(cls, value: Any) -> None:
        if value is not None:
            raise PydanticCustomError(
                "labels",
                "candidate_labels: the labels are {labels}. Leave candidate_labels out.",
                {"labels": ", ".join(LABELS)},
            )


class TeiOptions(BaseModel):
    """Options of text-embeddings-inference and the hub's API next to `inputs`.

    Unknown keys are ignored, as there: clients send `options`, `normalize` or `prompt_name`.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    source: str | None = Field(None, description=SOURCE)
    raw_scores: bool = Field(False, description="return logits; with inputs in place of the scores")
    truncate: Truncate | bool | None = Field(
        None,
        description="side on which long texts are cut, or error; with inputs: true or false",
    )
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = Field(
        None,
        description="with inputs: the side on which truncate=true cuts",
        # Lower case is accepted, too. The document leaves it out, because generators make one
        # constant of both.
        json_schema_extra={"anyOf": [{"type": "string", "enum": ["Left", "Right"]}, _NULL]},
    )
    parameters: Parameters | None = Field(None, description="with inputs: the hub's parameters")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        parameters = self.parameters
        function = parameters.function_to_apply if parameters else None
        if self.raw_scores and function not in (None, "none"):
            raise PydanticCustomError(
                "scores",
                "raw_scores=true: parameters.function_to_apply={function} contradicts it. Leave "
                "one of the two out.",
                {"function": function},
            )
        truncation = parameters.truncation if parameters else None
        if truncation is not None and self.truncate not in (None, truncation):
            raise PydanticCustomError(
                "truncation",
                "truncate: parameters.truncation contradicts it. Leave one of the two out.",
            )
        return self

    @property
    def function(self) -> str:
        """The function that turns logits into scores: softmax, sigmoid or none."""
        requested = self.parameters.function_to_apply if self.parameters else None
        return requested or ("none" if self.raw_scores else "softmax")

    @property
    def policy(self) -> Truncate:
        """The side on which long texts are cut; the default is error, as in TEI."""
        cut = self.truncate
        if cut is None and self.parameters is not None:
            cut = self.parameters.truncation
        if isinstance(cut, str):
            return cut
        if not cut:
            return "error"
        return "left" if self.truncation_direction in ("Left", "left") else "right"


_INPUT_SCHEMAS: list[JsonValue] = [
    {"type": "string"},
    {"type": "array", "items": {"type": "string"}},
    {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
]


class TeiRequest(TeiOptions):
    """A text, or a list of texts."""

    inputs: str | list[Any] = Field(
        title="TeiInputs",  # generators name the type by it
        description="a string, or a list of strings or of lists of one string",
        json_schema_extra={"anyOf": _INPUT_SCHEMAS},
    )


class PredictRequest(TeiOptions):
    """One text, or a list of texts, in one of the fields text, texts and inputs.

    With `text` and `texts` unknown keys are errors.
    """

    text: str | None = Field(None, description="the text to classify")
    texts: list[Any] | None = Field(
        None,
        description="texts to classify; an item that is not a text gets an error in its place",
        json_schema_extra={"anyOf": [{"type": "array", "items": {"type": "string"}}, _NULL]},
    )
    inputs: str | list[Any] | None = Field(
        None,
        title="PredictInputs",
        description="in place of text or texts, answered as by Hugging Face's "
        "text-embeddings-inference: a string, or a list of strings or of lists of one string",
        json_schema_extra={"anyOf": [*_INPUT_SCHEMAS, _NULL]},
    )

    def form(self) -> str:
        """Return the name of the field that has the text.

        Raises:
            Problem: none or several of the fields are given, or an option of another field.
        """
        given = [name for name in ("text", "texts", "inputs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise Problem("invalid_request", "the body needs one of text, texts and inputs.")
        if given == ["inputs"]:
            return "inputs"
        for name in self.model_extra or {}:
            raise Problem(
                "invalid_request", f"{name[:100]}: unknown field. See /docs for the fields."
            )
        for name in ("truncation_direction", "parameters"):
            if getattr(self, name) is not None:
                raise Problem(
                    "invalid_request", f"{name}: applies to inputs only. Leave {name} out."
                )
        if isinstance(self.truncate, bool):
            value = str(self.truncate).lower()
            raise Problem(
                "invalid_request", f"truncate={value}: not a side. Write right, left or error."
            )
        return given[0]

    def truncate_policy(self) -> Truncate | None:
        """Return `truncate` of a request that `form` has checked; None: the service's setting."""
        return None if isinstance(self.truncate, bool) else self.truncate


class ExplainRequest(Strict):
    """One text to classify and explain."""

    text: str = Field(description="the text to explain")
    truncate: Truncate | None = Field(
        None, description="side on which a long text is cut, or error"
    )
    source: str | None = Field(None, description=SOURCE)


def parse(request_type: type[Request], body: bytes) -> Request:
    """Parse and check a body.

    Raises:
        Problem: the body is not JSON, or not a `request_type`.
    """
    try:
        return request_type.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MAX_ERRORS:  # `errors` makes an object per error
            raise Problem(
                "invalid_request", f"{error.error_count()} errors. See /docs for the fields."
            ) from None
        problem = error.errors(include_url=False, include_input=False)[0]
        if problem["type"] == "json_invalid":
            raise Problem("invalid_json", problem["msg"]) from None
        # The client chooses the keys, which may be long.
        field = ".".join(str(key)[:100] for key in problem["loc"][:2])
        message = problem["msg"]
        raise Problem("invalid_request", f"{field}: {message}" if field else message) from None
