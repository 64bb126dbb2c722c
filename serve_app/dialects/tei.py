"""The API of Hugging Face's text-embeddings-inference (TEI), and of the clients of its hub.

One answer has two forms. TEI's `/predict` returns the labels of a single text as a list. The hub's
API returns one list of labels per text, also for a single text. The hub's clients send to the
address that they are given, without a path: `POST /` answers them. They read the first list of any
answer, so `/predict` answers them in their form, too; else they would read only one label.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias, TypedDict

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.inference.encoder import Encoder
from finsent.labels import LABELS
from serve_app.http.answers import LABEL
from serve_app.http.endpoints import HttpCall, Route
from serve_app.http.requests import TeiOptions, TeiRequest, parse
from serve_app.http.responses import JSON, json_response
from serve_app.problems import Problem, too_many_characters, too_many_texts
from serve_app.service.answer import Answer, Answers
from serve_app.service.service import Service

# Answers the texts of a request; see `serve_app.http.api.Api.classify`.
Classify: TypeAlias = Callable[[HttpCall, list[Any], Truncate, str | None], Awaitable[Answers]]

# Parts of `User-Agent` of huggingface_hub and @huggingface/inference.
_HUB_AGENTS = ("hf_hub/", "@huggingface/inference/")
# Else a list with a million wrong items would give a million errors, which take seconds.
_FAIL_FAST = Field(fail_fast=True)
_Ids = Annotated[list[int], _FAIL_FAST]


class Lenient(BaseModel):
    """Base of requests whose unknown keys are ignored, as TEI ignores them."""

    model_config = ConfigDict(extra="ignore", strict=True)


class TokenizeRequest(Lenient):
    """A text, or texts, to tokenize."""

    inputs: str | Annotated[list[str], _FAIL_FAST] = Field(
        title="TokenizeInputs"
    )  # generators name the type by it
    add_special_tokens: bool = Field(True, description="include the special tokens around the text")
    prompt_name: str | None = Field(None, description="null: the model has no prompts")


class DecodeRequest(Lenient):
    """Token ids of a text, or of texts."""

    ids: _Ids | Annotated[list[_Ids], _FAIL_FAST] = Field(title="DecodeIds")
    skip_special_tokens: bool = Field(True, description="leave out special tokens")


class LabelScore(BaseModel):
    """A label and its score."""

    label: str = Field(json_schema_extra=LABEL)
    score: float


class SimpleToken(BaseModel):
    """A token of a text."""

    id: int
    text: str
    special: bool
    start: int | None = Field(
        description="first character in the text; null: the token is special, or the text was "
        "normalized before tokenizing"
    )
    stop: int | None = Field(description="the character after the last one; null: see start")


class LabelScoreBody(TypedDict):
    """`LabelScore` as it is written."""

    label: str
    score: float


class Tei:
    """The operations of TEI and of the hub's API, for one replica."""

    def __init__(self, service: Service, classify: Classify) -> None:
        self._service, self._classify = service, classify

    def routes(self) -> list[Route]:
        """Return the routes that finsent's own API does not have."""
        return [
            Route("/", "infer", self.infer, has_body=True),
            Route("/invocations", "invocations", self.invocations, has_body=True),
            Route("/tokenize", "tokenize", self.tokenize, has_body=True),
            Route("/decode", "decode", self.decode, has_body=True),
        ]

    async def infer(self, call: HttpCall) -> Response:
        """Classify for the hub's clients: one list of labels per text, also for a single text."""
        request = parse(TeiRequest, call.body)
        return json_response(await self._rankings(call, request.inputs, request))

    async def invocations(self, call: HttpCall) -> Response:
        """Classify as TEI's `/predict`, at the path that SageMaker requests."""
        request = parse(TeiRequest, call.body)
        return await self.predict(call, request.inputs, request)

    async def predict(
        self, call: HttpCall, inputs: str | list[Any], options: TeiOptions
    ) -> Response:
        """Classify as TEI's `/predict`: the labels of a single text are not nested.

        A list of one string is a single text. TEI reads a list of two strings as a pair, which
        finsent's models do not classify. Here a list of several strings is a batch.
        """
        rankings = await self._rankings(call, inputs, options)
        is_single = isinstance(inputs, str) or (len(inputs) == 1 and isinstance(inputs[0], str))
        agent = call.request.headers.get("user-agent", "")
        if any(name in agent for name in _HUB_AGENTS):
            is_single = False
        return json_response(rankings[0] if is_single else rankings)

    async def _rankings(
        self, call: HttpCall, inputs: str | list[Any], options: TeiOptions
    ) -> list[list[LabelScoreBody]]:
        """Return the labels of each text, the most probable first.

        Raises:
            Problem: an item is not a text, or cannot be classified.
        """
        answers = await self._classify(call, _texts(inputs), options.policy, options.source)
        rankings = []
        for answer in answers:
            if isinstance(answer, Problem):
                raise answer
            rankings.append(ranking(answer, options))
        return rankings

    async def tokenize(self, call: HttpCall) -> Response:
        """Tokenize texts as the model reads them, without its maximum length."""
        request = parse(TokenizeRequest, call.body)
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
                raise too_many_characters(len(text), limit)
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

    async def decode(self, call: HttpCall) -> Response:
        """Turn token ids into texts."""
        request = parse(DecodeRequest, call.body)
        rows: list[Any] = request.ids
        if not rows or isinstance(rows[0], int):
            rows = [rows]
        self._check_number(len(rows), "ids")
        limit = self._service.config.limits.characters
        longest = max(map(len, rows))
        if longest > limit:
            raise Problem(
                "text_too_long",
                f"ids: a text has {longest} tokens. Send at most {limit} "
                "(serve.limits.characters).",
            )
        self._check_tokens(sum(map(len, rows)), "ids")
        encoder, skip_special = self._service.model.engine.encoder, request.skip_special_tokens
        return json_response(
            [await asyncio.to_thread(_decoded, encoder, ids, skip_special) for ids in rows]
        )

    def _check_number(self, number: int, field: str) -> None:
        limit = self._service.config.limits.texts
        if number > limit:
            raise too_many_texts(field, number, limit)

    def _check_tokens(self, count: int, field: str) -> None:
        """Refuse more tokens than the model reads of the largest request to classify."""
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
        Problem: an id is not a token of the model.
    """
    limit = encoder.vocabulary
    unknown = next((id for id in ids if not 0 <= id < limit), None)
    if unknown is not None:
        raise Problem(
            "invalid_request",
            f"ids: {str(unknown)[:20]} is not a token of the model. "
            f"Send ids from 0 to {limit - 1}.",
        )
    return encoder.decode(ids, skip_special)


def ranking(answer: Answer, options: TeiOptions) -> list[LabelScoreBody]:
    """Return the labels of a text with their scores, the most probable first."""
    if options.function == "softmax":
        scores = [*answer.prediction.probabilities.values()]
    elif options.function == "none":
        scores = answer.logits
    else:
        scores = [_sigmoid(logit) for logit in answer.logits]
    ranked = sorted(zip(LABELS, scores, strict=True), key=lambda pair: -pair[1])
    top_k = options.parameters.top_k if options.parameters else None
    return [{"label": label, "score": score} for label, score in ranked[:top_k]]


def _texts(inputs: str | list[Any]) -> list[Any]:
    """Return the texts of a request.

    Raises:
        Problem: there is no text, or a pair.
    """
    texts = _not_empty(inputs)
    if not all(isinstance(item, list) for item in texts):
        return texts
    if any(len(item) == 2 for item in texts):
        raise Problem(
            "invalid_request",
            "inputs: the model classifies single texts, not pairs. Send each text in its own list.",
        )
    return [item[0] if len(item) == 1 else item for item in texts]


def _not_empty(inputs: str | list[Any]) -> list[Any]:
    """Return a text, or texts, as a list.

    Raises:
        Problem: there is no text; TEI refuses that, too.
    """
    if inputs == []:
        raise Problem("invalid_request", "inputs=[]: no text. Send at least one text.")
    return [inputs] if isinstance(inputs, str) else inputs


def _sigmoid(logit: float) -> float:
    # Two forms, so that `exp` does not overflow.
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))
