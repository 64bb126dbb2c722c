"""The API of vLLM for classifiers, which NVIDIA Dynamo and SGLang share: `/classify`, `/v1/models`.

https://docs.vllm.ai has it. What changes an answer is done or refused; what vLLM takes and leaves
aside, as `user`, is left aside here too.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, Field, model_validator
from starlette.responses import Response

from finsent.inference.config import Truncate
from finsent.labels import LABEL2ID, LABELS
from finsent.references import plain_name
from serve_app import schemas
from serve_app.answers import json_answer
from serve_app.operations import Call, Route
from serve_app.problems import Problem
from serve_app.service import Answer, Service
from serve_app.tei import Classify, Lenient

# vLLM's words for a status; it answers what it does not understand with 400.
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
    model: str | None = Field(None, description="one of /v1/models; null: the one that is served")
    truncate_prompt_tokens: int | None = Field(
        None,
        description="-1: cut too long texts at the model's maximum length; null: refuse them",
        ge=-1,
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="side on which truncate_prompt_tokens cuts; null: right"
    )
    use_activation: bool | None = Field(
        None,
        description="false: probs are the logits; the older names activation and softmax are taken",
        validation_alias=AliasChoices(*_ACTIVATION),
    )
    source: str | None = Field(None, description=schemas.SOURCE)
    add_special_tokens: bool = Field(True, description="the model reads no text without: true")
    priority: int = Field(0, description="all requests have the same: 0")

    @model_validator(mode="before")
    @classmethod
    def _first_activation(cls, value: Any) -> Any:
        """Leave out the names of `use_activation` that are null: the first other one counts."""
        if not isinstance(value, dict):
            return value
        return {k: v for k, v in value.items() if v is not None or k not in _ACTIVATION}


class Classification(BaseModel):
    """The answer for one text."""

    index: int = Field(description="number of the text, from 0")
    label: str = Field(json_schema_extra={"enum": [*LABELS]})
    probs: list[float] = Field(description="a probability by label, in the order of their ids")
    num_classes: int


class PromptTokensDetails(BaseModel):
    """Kinds of tokens."""

    cached_tokens: int | None


class Usage(BaseModel):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = Field(description="null: none are told")


class ClassifyAnswer(BaseModel):
    """The answers in the order of the texts."""

    id: str
    object: Literal["list"]
    created: int = Field(description="Unix time in seconds")
    model: str
    data: list[Classification]
    usage: Usage


class ModelPermission(BaseModel):
    """What clients may do with a model, as OpenAI's first API had it."""

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
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: int = Field(description="HTTP's status")


class ErrorAnswer(BaseModel):
    """An error, as OpenAI's clients read it."""

    error: ErrorInfo


class Vllm:
    """The operations of vLLM, for one replica."""

    def __init__(self, service: Service, classify: Classify) -> None:
        self._service, self._classify = service, classify

    def routes(self) -> list[Route]:
        """Return the routes; Dynamo and SGLang have the prefix /v1."""
        return [
            Route("/classify", "classify", self.classify, body=True, problem=problem_response),
            Route(
                "/v1/classify", "classify_v1", self.classify, body=True, problem=problem_response
            ),
            Route("/v1/models", "models", self.models, "GET", problem=problem_response),
        ]

    async def classify(self, call: Call) -> Response:
        """Classify texts; one that cannot be classified refuses the request."""
        request: ClassifyRequest = schemas.parse(ClassifyRequest, call.body)
        service = self._service
        self._check_model(request.model)
        _check_supported(request)
        texts = [request.input] if isinstance(request.input, str) else request.input
        if any(isinstance(text, (int, list)) for text in texts):
            raise Problem("invalid_request", "input: token ids are not classified. Send texts.")
        answers = await self._classify(call, texts, self._policy(request), request.source)
        data, tokens = [], 0
        for i, answer in enumerate(answers):
            if isinstance(answer, Problem):
                raise Problem(answer.code, f"input[{i}]: {answer.detail}")
            data.append(_classification(i, answer, request.use_activation is False))
            tokens += answer.tokens
        return json_answer(
            {
                "id": f"classify-{call.asker.request_id}",
                "object": "list",
                "created": int(time.time()),
                "model": names(service)[0],
                "data": data,
                "usage": {
                    "prompt_tokens": tokens,
                    "total_tokens": tokens,
                    "completion_tokens": 0,
                    "prompt_tokens_details": None,
                },
            }
        )

    async def models(self, _: Call) -> Response:
        """List the names of the model."""
        model = self._service.model
        created = int(model.loaded)
        return json_answer(
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
                    for name in names(self._service)
                ],
            }
        )

    def _check_model(self, name: str | None) -> None:
        known = [*names(self._service), self._service.model.version]
        if name is not None and name not in known:
            raise Problem(
                "model_not_found",
                f"model={name[:100]!r}: not served here. Write one of {', '.join(known)}, or add "
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
                f"only. Write -1 or {longest}.",
            )
        return request.truncation_side or "right"


def names(service: Service) -> list[str]:
    """Return the names that the model has for vLLM's clients; answers carry the first."""
    return [*dict.fromkeys([*service.config.served_names, plain_name(service.wanted)])]


def problem_response(problem: Problem, request_id: str) -> Response:
    """Return a problem as vLLM and OpenAI write errors."""
    del request_id  # in the headers
    status = 400 if problem.status == 422 else problem.status
    error = {
        "message": problem.detail,
        "type": _TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError"),
        "param": None,
        "code": status,
    }
    return json_answer({"error": error}, status, problem.headers())


def _check_supported(request: ClassifyRequest) -> None:
    if not request.add_special_tokens:
        raise Problem(
            "invalid_request",
            "add_special_tokens=false: the model reads no text without special tokens. Leave "
            "add_special_tokens out.",
        )
    if request.priority != 0:
        raise Problem(
            "invalid_request",
            f"priority={request.priority}: all requests have the same priority. Leave priority "
            "out.",
        )


def _classification(index: int, answer: Answer, is_raw: bool) -> dict[str, Any]:
    found = answer.prediction
    probs = answer.logits if is_raw else [*found.probabilities.values()]
    return {"index": index, "label": found.label, "probs": probs, "num_classes": len(LABEL2ID)}
