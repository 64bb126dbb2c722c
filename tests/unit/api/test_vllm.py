"""The API of vLLM for classifiers: fields, names of the model, options, errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.registry.registry import Registry
from serve_app.auth import new_key
from tests.unit.api.apps import post
from tests.unit.models import MAX_LENGTH, TEXTS

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


def error(response: Any, status: int, kind: str) -> str:
    """Check that an answer is an error as OpenAI's clients read it, and return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert (body["error"]["type"], body["error"]["code"]) == (kind, status)
    return str(body["error"]["message"])


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_answers_have_the_fields_of_vllm(
    client: TestClient,
    engine: Engine,
    path: str,
) -> None:
    texts = [TEXTS[0], TEXTS[5]]
    body = post(client, {"model": "champion", "input": texts}, path, x_request_id="desk-1").json()
    assert body.keys() == {"id", "object", "created", "model", "data", "usage"}
    assert (body["id"], body["object"], body["model"]) == ("classify-desk-1", "list", "champion")
    assert abs(body["created"] - time.time()) < 60
    for i, (item, expected) in enumerate(zip(body["data"], engine.classify(texts), strict=True)):
        assert item.keys() == {"index", "label", "probs", "num_classes"}
        assert (item["index"], item["label"], item["num_classes"]) == (i, expected.label, 3)
        assert item["probs"] == pytest.approx([*expected.probabilities.values()], abs=1e-5)
    tokens = sum(len(item.ids) for item in engine.encode(texts))
    assert body["usage"] == {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }
    single = post(client, {"input": texts[0]}, path).json()
    assert single["data"] == body["data"][:1]
    assert post(client, {"input": []}, path).json()["data"] == []


def test_options_that_change_answers_are_honored(client: TestClient, engine: Engine) -> None:
    logits = pytest.approx(engine.logits([TEXTS[1]])[0].tolist(), abs=1e-4)
    for name in ("use_activation", "activation", "softmax"):
        [item] = post(client, {"input": TEXTS[1], name: False}, "/classify").json()["data"]
        assert item["probs"] == logits
        [item] = post(client, {"input": TEXTS[1], name: True}, "/classify").json()["data"]
        assert sum(item["probs"]) == pytest.approx(1, abs=1e-5)
    nulls = {"use_activation": None, "activation": False, "softmax": None}
    [item] = post(client, {"input": TEXTS[1], **nulls}, "/classify").json()["data"]
    assert item["probs"] == logits
    long = "up " * 100 + "down " * 100
    cut = {"input": long, "truncate_prompt_tokens": -1}
    right, left, same = (
        post(client, {**cut, **extra}, "/classify").json()
        for extra in ({}, {"truncation_side": "left"}, {"truncate_prompt_tokens": MAX_LENGTH})
    )
    assert right["data"] == same["data"] != left["data"]
    assert right["usage"]["prompt_tokens"] == MAX_LENGTH


@pytest.mark.parametrize(
    "extra",
    [
        {"user": "desk"},
        {"priority": 0},
        {"add_special_tokens": True},
        {"padding": "do_not_pad"},
        {"cache_salt": "abc"},
        {"truncate_prompt_tokens": None},
        {"nvext": {"annotations": []}},
    ],
)
def test_options_that_change_nothing_are_accepted(
    client: TestClient, extra: dict[str, Any]
) -> None:
    plain = post(client, {"input": "Up"}, "/classify").json()["data"]
    assert post(client, {"input": "Up", **extra}, "/classify").json()["data"] == plain


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": ""}, "blank"),
        ({"input": "&nbsp;"}, "blank"),
        ({"input": ["Up", " "]}, "input[1]"),
        ({"input": [1, 2]}, "token ids"),
        ({"input": [[1, 2]]}, "token ids"),
        ({"input": [None]}, "input[0]"),
        ({"messages": [{"role": "user", "content": "Up"}]}, "input"),
        ({"input": "order " * 100}, "tokens"),
        ({"input": "Up", "truncate_prompt_tokens": 16}, f"Send -1 or {MAX_LENGTH}"),
        ({"input": "Up", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"input": "Up", "add_special_tokens": False}, "add_special_tokens"),
        ({"input": "Up", "priority": 1}, "priority"),
        ({"input": ["Up"] * 1025}, "1024"),
    ],
)
def test_unsupported_requests_are_refused(
    client: TestClient,
    body: dict[str, Any],
    words: str,
) -> None:
    assert words in error(post(client, body, "/classify"), 400, "BadRequestError")


def test_names_of_the_model(
    client: TestClient,
    registry: Registry,
    serving: Callable[..., TestClient],
) -> None:
    version = registry.aliases()["champion"]
    message = error(
        post(client, {"input": "Up", "model": "bert"}, "/classify"), 404, "NotFoundError"
    )
    assert "champion" in message
    assert post(client, {"input": "Up", "model": version}, "/classify").status_code == 200
    assert serving(model="alias:champion").get("/v1/models").json()["data"][0]["id"] == "champion"
    named = serving(served_names=["ProsusAI/finbert", "finbert"])
    cards = named.get("/v1/models").json()
    assert cards.keys() == {"object", "data"}
    assert [item["id"] for item in cards["data"]] == ["ProsusAI/finbert", "finbert", "champion"]
    for card in cards["data"]:
        assert card.keys() == {
            "id",
            "object",
            "created",
            "owned_by",
            "root",
            "parent",
            "max_model_len",
            "permission",
        }
        assert (card["root"], card["max_model_len"]) == (version, MAX_LENGTH)
        result = post(named, {"input": "Up", "model": card["id"]}, "/classify")
        assert result.json()["model"] == "ProsusAI/finbert"
        assert result.json()["data"][0]["label"] in LABELS


def test_missing_keys_are_refused_in_the_same_form(
    serving: Callable[..., TestClient],
    tmp_path: Any,
) -> None:
    key = new_key(tmp_path / "keys.json", "desk", "predict")
    client = serving(api_keys=str(tmp_path / "keys.json"))
    for response in (client.post("/classify", json={"input": "Up"}), client.get("/v1/models")):
        error(response, 401, "UnauthorizedError")
        assert response.headers["www-authenticate"] == "Bearer"
    result = client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert result.status_code == 200
