"""The API of Hugging Face's text-embeddings-inference (TEI), and of the clients of its hub.

Two forms of one answer: TEI's `/predict` gives the labels of a single text as they are, the hub's
API a list with the labels of each text, also of a single one. The hub's clients send to the address
that they are given, without a path: `POST /` answers them. They read the first list of any answer,
and would take one label for all of them: where they ask `/predict`, it answers in their form, too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.inference.encoder import Encoder
from finsent.labels import ID2LABEL, LABEL2ID, LABELS
from finsent.references import plain_name
from serve_app import schemas
from serve_app.answers import JSON, json_answer
from serve_app.operations import Call, Route
from serve_app.problems import Problem
from serve_app.service import Answer, Service

# Answers of a request's texts; see `serve_app.http.Api.classify`.
Classify = Callable[[Call, list[Any], Truncate, str | None], Awaitable[list[Answer | Problem]]]

# In `User-Agent`: huggingface_hub and @huggingface/inference name themselves so.
_HUB_AGENTS = ("hf_hub/", "@huggingface/inference/")
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # TEI's words
# A list with a million wrong items would give a million errors, which take seconds.
_FAIL_FAST = Field(fail_fast=True)
_Ids = Annotated[list[int], _FAIL_FAST]


class Lenient(BaseModel):
    """Base of requests whose unknown keys are left aside, as TEI does."""

    model_config = ConfigDict(extra="ignore", strict=True)


class TokenizeRequest(Lenient):
    """A text, or texts, to be taken apart."""

    inputs: str | Annotated[list[str], _FAIL_FAST] = Field(
        title="TokenizeInputs"
    )  # generators name the type by it
    add_special_tokens: bool = Field(True, description="with those around the text")
    prompt_name: str | None = Field(None, description="null: the models have no prompts")


class DecodeRequest(Lenient):
    """Token ids of a text, or of texts."""

    ids: _Ids | Annotated[list[_Ids], _FAIL_FAST] = Field(title="DecodeIds")
    skip_special_tokens: bool = Field(True, description="leave out those around the text")


class LabelScore(BaseModel):
    """A label and its score."""

    label: str = Field(json_schema_extra={"enum": [*LABELS]})
    score: float


class SimpleToken(BaseModel):
    """A token of a text."""

    id: int
    text: str
    special: bool
    start: int | None = Field(
        description="first character in the text; null: a special token, or of a text that was "
        "normalized before it was read"
    )
    stop: int | None = Field(description="the character after the last one; null: as for start")


class Tei:
    """The operations of TEI and of the hub's API, for one replica."""

    def __init__(self, service: Service, classify: Classify) -> None:
        self._service, self._classify = service, classify

    def routes(self) -> list[Route]:
        """Return the routes that finsent's own API does not have."""
        return [
            Route("/", "infer", self.infer, body=True),
            Route("/invocations", "invocations", self.invocations, body=True),
            Route("/tokenize", "tokenize", self.tokenize, body=True),
            Route("/decode", "decode", self.decode, body=True),
        ]

    async def infer(self, call: Call) -> Response:
        """Classify for the hub's clients: a list of labels per text, also for a single text."""
        request: schemas.TeiRequest = schemas.parse(schemas.TeiRequest, call.body)
        return json_answer(await self._rankings(call, request.inputs, request))

    async def invocations(self, call: Call) -> Response:
        """Classify as TEI's `/predict`, where SageMaker asks."""
        request: schemas.TeiRequest = schemas.parse(schemas.TeiRequest, call.body)
        return await self.predict(call, request.inputs, request)

    async def predict(
        self, call: Call, inputs: str | list[Any], options: schemas.TeiOptions
    ) -> Response:
        """Classify as TEI's `/predict`: the labels of a single text are not nested.

        A list of one string is a single text. TEI reads two strings as a pair, which this service's
        models do not classify: here a longer list of strings is a batch.
        """
        rankings = await self._rankings(call, inputs, options)
        is_single = isinstance(inputs, str) or (len(inputs) == 1 and isinstance(inputs[0], str))
        agent = call.request.headers.get("user-agent", "")
        if any(name in agent for name in _HUB_AGENTS):
            is_single = False
        return json_answer(rankings[0] if is_single else rankings)

    async def _rankings(
        self, call: Call, inputs: str | list[Any], options: schemas.TeiOptions
    ) -> list[list[dict[str, Any]]]:
        """Return the labels of each text, the best first.

        Raises:
            Problem: a text is none, or cannot be classified.
        """
        answers = await self._classify(call, _texts(inputs), options.policy, options.source)
        rankings = []
        for answer in answers:
            if isinstance(answer, Problem):
                raise answer
            rankings.append(ranking(answer, options))
        return rankings

    async def tokenize(self, call: Call) -> Response:
        """Take texts apart, as the model reads them, but for its maximum length."""
        request: TokenizeRequest = schemas.parse(TokenizeRequest, call.body)
        if request.prompt_name is not None:
            raise Problem(
                "invalid_request",
                f"prompt_name={request.prompt_name[:100]!r}: the model has no prompts. Leave "
                "prompt_name out.",
            )
        texts = _not_empty(request.inputs)
        self._check_number(len(texts), "inputs")
        limit = self._service.config.limits.characters
        encoder, token_count, rows = self._service.model.engine.encoder, 0, []
        for text in texts:
            if len(text) > limit:
                raise Problem(
                    "text_too_long",
                    f"{len(text)} characters; at most {limit} are taken (serve.limits.characters)",
                )
            try:
                row, row_tokens = await asyncio.to_thread(
                    _token_row, encoder, text, request.add_special_tokens
                )
            except InputError as error:
                raise Problem("invalid_text", str(error)) from None
            rows.append(row)
            token_count += row_tokens
            self._check_tokens(token_count, "inputs")
        return Response(b"[%b]" % b",".join(rows), media_type=JSON)

    async def decode(self, call: Call) -> Response:
        """Turn token ids into texts."""
        request: DecodeRequest = schemas.parse(DecodeRequest, call.body)
        rows: list[Any] = request.ids
        if not rows or isinstance(rows[0], int):
            rows = [rows]
        self._check_number(len(rows), "ids")
        limit = self._service.config.limits.characters
        longest = max(map(len, rows))
        if longest > limit:
            raise Problem(
                "text_too_long",
                f"ids: {longest} tokens of a text; at most {limit} are taken "
                "(serve.limits.characters)",
            )
        self._check_tokens(sum(map(len, rows)), "ids")
        encoder, skip_special = self._service.model.engine.encoder, request.skip_special_tokens
        return json_answer(
            [await asyncio.to_thread(_decoded, encoder, ids, skip_special) for ids in rows]
        )

    def _check_number(self, number: int, field: str) -> None:
        limit = self._service.config.limits.texts
        if number > limit:
            raise Problem(
                "too_many_texts",
                f"{field}: {number} texts; at most {limit} are taken in one request "
                "(serve.limits.texts)",
            )

    def _check_tokens(self, count: int, field: str) -> None:
        """Refuse more tokens than the model reads of the largest request for labels."""
        texts, longest = self._service.config.limits.texts, self._service.model.engine.max_length
        if count > texts * longest:
            raise Problem(
                "too_many_texts",
                f"{field}: more than {texts * longest} tokens, {longest} for each of {texts} texts "
                "(serve.limits.texts). Send fewer texts in one request.",
            )


def _token_row(encoder: Encoder, text: str, special: bool) -> tuple[bytes, int]:
    """Return the tokens of a text as JSON, and their number."""
    tokens = encoder.tokens(text, special)
    return orjson.dumps(tokens), len(tokens)


def _decoded(encoder: Encoder, ids: list[int], skip_special: bool) -> str:
    """Return the text of token ids.

    Raises:
        Problem: an id is no token of the model.
    """
    limit = encoder.vocabulary
    wrong = next((one for one in ids if not 0 <= one < limit), None)
    if wrong is not None:
        raise Problem(
            "invalid_request",
            f"ids: {str(wrong)[:20]} is no token of the model. Write ids from 0 to {limit - 1}.",
        )
    return encoder.decode(ids, skip_special)


def ranking(answer: Answer, options: schemas.TeiOptions) -> list[dict[str, Any]]:
    """Return the labels of a text with their scores, the best first."""
    if options.function == "softmax":
        scores = [*answer.prediction.probabilities.values()]
    elif options.function == "none":
        scores = answer.logits
    else:
        scores = [_sigmoid(logit) for logit in answer.logits]
    ranked = sorted(zip(LABELS, scores, strict=True), key=lambda pair: -pair[1])
    most = options.parameters.top_k if options.parameters else None
    return [{"label": label, "score": score} for label, score in ranked[:most]]


def info(service: Service) -> dict[str, Any]:
    """Return what TEI's `/info` says of a classifier."""
    config, engine = service.config, service.model.engine
    precision = engine.backend.name.rpartition("-")[2]
    return {
        "model_id": plain_name(service.wanted),
        "model_sha": service.model.version,
        "model_dtype": _DTYPES.get(precision, precision),
        "model_type": {
            "classifier": {
                "id2label": {str(number): label for number, label in ID2LABEL.items()},
                "label2id": LABEL2ID,
            }
        },
        "max_concurrent_requests": config.limits.requests,
        "max_input_length": engine.max_length,
        "max_batch_tokens": service.model.coalescer.budget,
        "max_batch_requests": engine.backend.max_rows,
        "max_client_batch_size": config.limits.texts,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": _version(),
        "sha": None,
        "docker_label": None,
    }


@cache
def _version() -> str:
    """Return finsent's version; a checkout that is not installed has none."""
    try:
        return version("finsent")
    except PackageNotFoundError:
        return "unknown"


def _texts(inputs: str | list[Any]) -> list[Any]:
    """Return the texts of a request.

    Raises:
        Problem: there is no text, or a pair.
    """
    texts = _not_empty(inputs)
    if not all(isinstance(one, list) for one in texts):
        return texts
    if any(len(one) == 2 for one in texts):
        raise Problem(
            "invalid_request",
            "inputs: the model classifies single texts, not pairs. Send each text in a list of "
            "its own.",
        )
    return [one[0] if len(one) == 1 else one for one in texts]


def _not_empty(inputs: str | list[Any]) -> list[Any]:
    """Return a text, or texts, as a list.

    Raises:
        Problem: there is no text, which TEI refuses, too.
    """
    if inputs == []:
        raise Problem("invalid_request", "inputs=[]: there is no text. Send at least one.")
    return [inputs] if isinstance(inputs, str) else inputs


def _sigmoid(logit: float) -> float:
    # Two forms, so that `exp` does not overflow.
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))
