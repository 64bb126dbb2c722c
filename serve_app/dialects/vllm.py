"""The API of vLLM for classifiers, which NVIDIA Dynamo and SGLang share: `/classify`, `/v1/models`.

https://docs.vllm.ai documents it. Fields that change an answer are applied or refused. Fields that
vLLM accepts and ignores, such as `user`, are ignored here, too.
"""

from __future__ import annotations

import time
from typing import Any, Literal, TypedDict

from pydantic import AliasChoices, BaseModel, Field, model_validator
from starlette.responses import Response

from finsent.inference.config import Truncate
from finsent.labels import LABEL2ID
from finsent.references import plain_name
from serve_app.dialects.tei import Classify, Lenient
from serve_app.http.answers import LABEL
from serve_app.http.endpoints import HttpCall, Route
from serve_app.http.requests import SOURCE, parse
from serve_app.http.responses import json_response
from serve_app.problems import Problem
from serve_app.service.answer import Answer
from serve_app.service.service import Service

# vLLM's words for a status. vLLM answers requests that are not valid with 400.
_TYPES = {
    400: "BadRequestError",
    401: "UnauthorizedError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
}
_PERMISSION = {
    "object": "model_permission",
    "allow_create_engine": False,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}
_ACTIVATION = ("use_activation", "activation", "softmax")  # the newest name first


class ClassifyRequest(Lenient):
    """A text, or texts, to classify."""

    input: str | list[Any] = Field(
        title="ClassifyInput",
        description="a text, or a list of texts",
        json_schema_extra={
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        },
    )
    model: str | None = Field(None, description="a name of /v1/models; null: any")
    truncate_prompt_tokens: int | None = Field(
        None,
        description="-1: cut long texts at the model's maximum length; null: refuse long texts",
        ge=-1,
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="side on which truncate_prompt_tokens cuts; null: right"
    )
    use_activation: bool | None = Field(
        None,
        description="false: probs are logits; the older names activation and softmax work, too",
        validation_alias=AliasChoices(*_ACTIVATION),
    )
    source: str | None = Field(None, description=SOURCE)
    add_special_tokens: bool = Field(True, description="true: the model needs special tokens")
    priority: int = Field(0, description="0: all requests have the same priority")

    @model_validator(mode="before")
    @classmethod
    def _first_activation(cls, value: Any) -> Any:
        """Drop the names of `use_activation` that are null, so that the first other name counts."""
        if not isinstance(value, dict):
            return value
        return {
            name: item
            for name, item in value.items()
            if item is not None or name not in _ACTIVATION
        }


class Classification(BaseModel):
    """The answer for one text."""

    index: int = Field(description="number of the text, from 0")
    label: str = Field(json_schema_extra=LABEL)
    probs: list[float] = Field(description="a probability per label, in the order of the label ids")
    num_classes: int


class PromptTokensDetails(BaseModel):
    """Kinds of tokens."""

    cached_tokens: int | None


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = Field(description="null: no details")


class ClassifyAnswer(BaseModel):
    """The answers in the order of the texts."""

    id: str
    object: Literal["list"]
    created: int = Field(description="Unix time in seconds")
    model: str
    data: list[Classification]
    usage: Usage


class ModelPermission(BaseModel):
    """Permissions of clients, in the form of OpenAI's first API."""

    id: str
    object: Literal["model_permission"]
    created: int
    allow_create_engine: bool
    allow_sampling: bool
    allow_logprobs: bool
    allow_search_indices: bool
    allow_view: bool
    allow_fine_tuning: bool
    organization: str
    group: str | None
    is_blocking: bool


class ModelCard(BaseModel):
    """A name of the model that is served."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Unix time in seconds at which the model was loaded")
    owned_by: str
    root: str = Field(description="the model version")
    parent: str | None
    max_model_len: int = Field(description="tokens of a text at most")
    permission: list[ModelPermission]


class ModelList(BaseModel):
    """The names of the model that is served."""

    object: Literal["list"]
    data: list[ModelCard]


class ErrorInfo(BaseModel):
    """An error."""

    message: str
    type: str
    param: str | None
    code: int = Field(description="HTTP status")


class ErrorAnswer(BaseModel):
    """An error in the form that OpenAI's clients read."""

    error: ErrorInfo


class ClassificationBody(TypedDict):
    """`Classification` as it is written."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Vllm:
    """The operations of vLLM, for one replica."""

    def __init__(self, service: Service, classify: Classify) -> None:
        self._service, self._classify = service, classify

    def routes(self) -> list[Route]:
        """Return the routes; Dynamo and SGLang have the prefix /v1."""
        write = openai_error
        return [
            Route("/classify", "classify", self.classify, has_body=True, write_problem=write),
            Route("/v1/classify", "classify_v1", self.classify, has_body=True, write_problem=write),
            Route("/v1/models", "models", self.models, "GET", write_problem=write),
        ]

    async def classify(self, call: HttpCall) -> Response:
        """Classify texts; one that cannot be classified refuses the request."""
        request = parse(ClassifyRequest, call.body)
        service = self._service
        self._check_model(request.model)
        _check_supported(request)
        texts = [request.input] if isinstance(request.input, str) else request.input
        if any(isinstance(text, (int, list)) for text in texts):
            raise Problem("invalid_request", "input: token ids are not supported. Send texts.")
        answers = await self._classify(call, texts, self._policy(request), request.source)
        data, tokens = [], 0
        for i, answer in enumerate(answers):
            if isinstance(answer, Problem):
                raise Problem(answer.code, f"input[{i}]: {answer.detail}")
            data.append(_classification(i, answer, request.use_activation is False))
            tokens += answer.tokens
        return json_response(
            {
                "id": f"classify-{call.sender.request_id}",
                "object": "list",
                "created": int(time.time()),
                "model": served_names(service)[0],
                "data": data,
                "usage": {
                    "prompt_tokens": tokens,
                    "total_tokens": tokens,
                    "completion_tokens": 0,
                    "prompt_tokens_details": None,
                },
            }
        )

    async def models(self, _: HttpCall) -> Response:
        """List the names of the model."""
        model = self._service.model
        created = int(model.loaded)
        return json_response(
            {
                "object": "list",
                "data": [
                    {
                        "id": name,
                        "object": "model",
                        "created": created,
                        "owned_by": "finsent",
                        "root": model.version,
                        "parent": None,
                        "max_model_len": model.engine.max_length,
                        "permission": [
                            {"id": f"modelperm-{model.version}", "created": created, **_PERMISSION}
                        ],
                    }
                    for name in served_names(self._service)
                ],
            }
        )

    def _check_model(self, name: str | None) -> None:
        known = [*served_names(self._service), self._service.model.version]
        if name is not None and name not in known:
            raise Problem(
                "model_not_found",
                f"model={name[:100]!r}: not served here. Send one of {', '.join(known)}, or add "
                "the name to serve.served_names.",
            )

    def _policy(self, request: ClassifyRequest) -> Truncate:
        length = request.truncate_prompt_tokens
        if length is None:
            return "error"
        longest = self._service.model.engine.max_length
        if length not in (-1, longest):
            raise Problem(
                "invalid_request",
                f"truncate_prompt_tokens={length}: texts are cut at the model's maximum length "
                f"only. Send -1 or {longest}.",
            )
        return request.truncation_side or "right"


def served_names(service: Service) -> list[str]:
    """Return the names of the model for vLLM's clients; answers carry the first name."""
    return [*dict.fromkeys([*service.config.served_names, plain_name(service.models.reference)])]


def openai_error(problem: Problem, _: str) -> Response:
    """Return a problem in the form in which vLLM and OpenAI write errors."""
    status = 400 if problem.status == 422 else problem.status
    error = {
        "message": problem.detail,
        "type": _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError"),
        "param": None,
        "code": status,
    }
    return json_response({"error": error}, status, problem.headers())


def _check_supported(request: ClassifyRequest) -> None:
    if not request.add_special_tokens:
        raise Problem(
            "invalid_request",
            "add_special_tokens=false: the model needs them. Leave add_special_tokens out.",
        )
    if request.priority != 0:
        raise Problem(
            "invalid_request",
            f"priority={request.priority}: all requests have the same priority. Leave priority "
            "out.",
        )


def _classification(index: int, answer: Answer, is_raw: bool) -> ClassificationBody:
    prediction = answer.prediction
    probs = answer.logits if is_raw else [*prediction.probabilities.values()]
    return {
        "index": index,
        "label": prediction.label,
        "probs": probs,
        "num_classes": len(LABEL2ID),
    }
