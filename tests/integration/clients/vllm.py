"""Clients of vLLM, NVIDIA Dynamo and SGLang."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.integration.clients.cases import OTHER, TEXT, World, case, near

VLLM = "vLLM's example client (plain HTTP)"


def classified(world: World, body: dict[str, Any], texts: list[str]) -> None:
    assert body.keys() == {"id", "object", "created", "model", "data", "usage"}
    assert body["id"].startswith("classify-")
    assert (body["object"], body["model"]) == ("list", "champion")
    for i, (item, text) in enumerate(zip(body["data"], texts, strict=True)):
        [prediction] = world.engine.classify([text])
        assert item == {
            "index": i,
            "label": prediction.label,
            "num_classes": 3,
            "probs": near([*prediction.probabilities.values()]),
        }
    tokens = sum(len(item.ids) for item in world.engine.encode(texts))
    assert (body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]) == (tokens, tokens)


@case(
    VLLM,
    'POST URL/classify {"model": NAME, "input": [text, ...]}',
    "POST /classify",
    "index, label, probs and num_classes per text; usage",
)
def vllm_classifies(world: World) -> None:
    body = {"model": "champion", "input": [TEXT, OTHER]}
    classified(world, httpx.post(f"{world.url}/classify", json=body).json(), [TEXT, OTHER])


@case(
    "NVIDIA Dynamo, SGLang (plain HTTP)",
    'POST URL/v1/classify {"model": NAME, "input": text}',
    "POST /v1/classify",
    "the same",
)
def dynamo_classifies(world: World) -> None:
    body = {"model": "champion", "input": TEXT}
    classified(world, httpx.post(f"{world.url}/v1/classify", json=body).json(), [TEXT])


OPENAI = "openai"


def openai_client(world: World, path: str = "/v1") -> Any:
    from openai import OpenAI

    return OpenAI(base_url=world.url + path, api_key="none", max_retries=0)


@case(
    OPENAI,
    'OpenAI(base_url=URL + "/v1").models.list()',
    "GET /v1/models",
    "the alias, and names in serve.served_names",
)
def openai_lists(world: World) -> None:
    [card] = openai_client(world).models.list().data
    assert (card.id, card.object) == ("champion", "model")
    assert (card.root, card.max_model_len) == (world.version, world.engine.max_length)


@case(
    OPENAI,
    '... .post("/classify", body={...}, cast_to=dict)',
    "POST /v1/classify",
    "as vLLM's /classify",
)
def openai_classifies(world: World) -> None:
    body = {"model": "champion", "input": TEXT}
    classified(world, openai_client(world).post("/classify", body=body, cast_to=dict), [TEXT])


@case(
    OPENAI,
    "... with a name that is not served",
    "POST /v1/classify",
    "NotFoundError with the names that are",
)
def openai_not_found(world: World) -> None:
    from openai import NotFoundError

    body = {"model": "bert", "input": TEXT}
    with pytest.raises(NotFoundError, match="Send one of champion") as caught:
        openai_client(world).post("/classify", body=body, cast_to=dict)
    assert caught.value.type == "NotFoundError"
