"""The API of text-embeddings-inference and of the hub's clients: forms, options, tokens, errors."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.registry.registry import Registry
from tests.unit.api.apps import in_loop, make_app, post, problem
from tests.unit.models import TEXTS

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


def scores(ranking: list[dict[str, Any]]) -> dict[str, float]:
    assert [item.keys() for item in ranking] == [{"label", "score"}] * len(ranking)
    values = [item["score"] for item in ranking]
    assert values == sorted(values, reverse=True)
    return {item["label"]: item["score"] for item in ranking}


@pytest.mark.parametrize(
    ("path", "inputs", "nested"),
    [
        ("/predict", TEXTS[0], False),
        ("/predict", [TEXTS[0]], False),  # text-embeddings-inference: a sequence of one
        ("/predict", [[TEXTS[0]]], True),
        ("/predict", TEXTS[:2], True),
        ("/predict", [[TEXTS[0]], [TEXTS[1]]], True),
        ("/invocations", TEXTS[0], False),
        ("/invocations", [[TEXTS[0]]], True),
        ("/", TEXTS[0], True),  # the hub's clients take the first list
        ("/", [TEXTS[0]], True),
        ("/", TEXTS[:2], True),
    ],
)
def test_labels_are_nested_as_in_tei(
    client: TestClient,
    engine: Engine,
    path: str,
    inputs: Any,
    nested: bool,
) -> None:
    body = post(client, {"inputs": inputs}, path).json()
    texts = (
        [inputs] if isinstance(inputs, str) else [t if isinstance(t, str) else t[0] for t in inputs]
    )
    rankings = body if nested else [body]
    assert len(rankings) == len(texts)
    for ranking, expected in zip(rankings, engine.classify(texts), strict=True):
        assert scores(ranking) == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize(
    "agent",
    ["unknown/None; hf_hub/2.4.0; python/3.11", "@huggingface/inference/4.13.30 Node.js/20"],
)
def test_clients_of_the_hub_are_recognized_by_their_user_agent(
    client: TestClient, agent: str
) -> None:
    for inputs in (TEXTS[0], [TEXTS[0]]):
        [ranking] = post(client, {"inputs": inputs}, "/predict", user_agent=agent).json()
        assert scores(ranking).keys() == {*LABELS}


@pytest.mark.parametrize("path", ["/", "/predict", "/invocations"])
@pytest.mark.parametrize(
    "extra",
    [
        {"options": {"wait_for_model": True, "use_cache": False}},
        {"normalize": True},
        {"prompt_name": None},
        {"parameters": None},
        {"parameters": {}},
        {"parameters": {"top_k": None, "function_to_apply": None}},
        {"truncate": None},
    ],
)
def test_unknown_keys_are_ignored(
    client: TestClient,
    path: str,
    extra: dict[str, Any],
) -> None:
    plain = post(client, {"inputs": TEXTS[0]}, path).json()
    assert post(client, {"inputs": TEXTS[0], **extra}, path).json() == plain


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_parameters_are_honored(client: TestClient, engine: Engine, path: str) -> None:
    def ask(text: str = TEXTS[1], **parameters: Any) -> dict[str, float]:
        body = post(client, {"inputs": text, "parameters": parameters}, path).json()
        return scores(body[0] if path == "/" else body)

    logits = dict(zip(LABELS, engine.logits([TEXTS[1]])[0].tolist(), strict=True))
    everything = ask()
    for k in (1, 2, 3, 50):
        assert ask(top_k=k) == dict([*everything.items()][:k])
    assert ask(function_to_apply="softmax") == everything
    assert ask(function_to_apply="none") == pytest.approx(logits, abs=1e-4)
    sigmoids = {label: 1 / (1 + math.exp(-logit)) for label, logit in logits.items()}
    assert ask(function_to_apply="sigmoid") == pytest.approx(sigmoids, abs=1e-4)
    assert ask(function_to_apply="none", top_k=1) == dict(
        [*ask(function_to_apply="none").items()][:1]
    )
    assert ask("order " * 100, truncation=True).keys() == {*LABELS}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"parameters": {"candidate_labels": ["up", "down"]}}, "negative, neutral, positive"),
        ({"parameters": {"top_k": 0}}, "top_k"),
        ({"parameters": {"top_k": "1"}}, "top_k"),
        ({"parameters": {"function_to_apply": "relu"}}, "function_to_apply"),
        ({"parameters": {"return_all_scores": True}}, "return_all_scores"),
        ({"parameters": {"function_to_apply": "sigmoid"}, "raw_scores": True}, "raw_scores"),
        ({"parameters": {"truncation": False}, "truncate": True}, "truncat"),
        ({"inputs": [["a", "b"]]}, "pairs"),
        ({"inputs": {"text": "a"}}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": []}, "inputs=[]: no text"),
        ({"inputs": [["a"], "b"]}, "string"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/predict", "/invocations"])
def test_unsupported_requests_are_refused(
    client: TestClient,
    path: str,
    body: dict[str, Any],
    words: str,
) -> None:
    response = post(client, {"inputs": TEXTS[0], **body}, path)
    assert response.status_code == 422, response.text
    answer = response.json()
    assert words in answer["detail"]
    assert answer["error"] == answer["detail"]
    assert answer["error_type"] == (
        "Tokenizer" if answer["code"] == "invalid_text" else "Validation"
    )


def test_unknown_keys_next_to_text_are_refused(client: TestClient) -> None:
    refusal = problem(post(client, {"text": "Up", "options": {}}), "invalid_request")
    assert "options" in refusal["detail"]
    problem(post(client, {"inputs": "Up", "text": "Up"}), "invalid_request")


def test_long_texts_are_refused_unless_truncation_is_requested(client: TestClient) -> None:
    long = {"inputs": "up " * 100 + "down " * 100}
    assert problem(post(client, long, "/"), "text_too_long")["error_type"] == "Validation"
    right, left = (
        post(client, {**long, "truncate": True, "truncation_direction": side}, "/").json()
        for side in ("Right", "Left")
    )
    assert right != left
    for inputs in ([long["inputs"]], [long["inputs"], "up"], [[long["inputs"]]]):
        assert post(client, {"inputs": inputs, "truncate": True}).status_code == 200
        problem(post(client, {"inputs": inputs}), "text_too_long")


def test_info_has_the_fields_of_text_embeddings_inference(
    client: TestClient, engine: Engine
) -> None:
    body = client.get("/info").json()
    assert body["model_type"] == {
        "classifier": {
            "id2label": {"0": "negative", "1": "neutral", "2": "positive"},
            "label2id": {"negative": 0, "neutral": 1, "positive": 2},
        }
    }
    assert body["model_id"] == "champion"
    assert body["model_sha"] == body["model_version"]
    assert body["model_dtype"] == "float32"
    assert body["max_input_length"] == engine.max_length
    assert body["max_client_batch_size"] == 1024
    assert client.get("/ping").status_code == 200


def test_tokens_are_those_that_the_model_reads(client: TestClient, engine: Engine) -> None:
    text = "Zürich earned CHF 5."
    [tokens] = post(client, {"inputs": text}, "/tokenize").json()
    assert [item["id"] for item in tokens] == engine.encode([text])[0].ids
    assert [item["text"] for item in tokens if item["special"]] == ["[CLS]", "[SEP]"]
    assert {item["start"] for item in tokens if item["special"]} == {None}
    for item in tokens[1:-1]:
        assert item.keys() == {"id", "text", "special", "start", "stop"}
        assert text[item["start"] : item["stop"]] == item["text"]
    two = post(client, {"inputs": [text, "Up"], "add_special_tokens": False}, "/tokenize").json()
    assert two[0] == tokens[1:-1]
    assert len(two) == 2
    # All of a text, and no places where normalization moved them.
    [long] = post(client, {"inputs": "order  " * 100}, "/tokenize").json()
    assert len(long) >= 102 > engine.max_length
    assert {item["start"] for item in long} == {None}
    # Places count characters, not bytes.
    chinese = "北京 天安门 up 3 % 😀 up"
    [tokens] = post(client, {"inputs": chinese}, "/tokenize").json()
    for item in tokens[1:-1]:
        assert chinese[item["start"] : item["stop"]] == item["text"]
    assert tokens[-2]["stop"] == len(chinese)
    assert post(client, {"inputs": ""}, "/tokenize").json()[0][0]["text"] == "[CLS]"


def test_ids_are_decoded_to_texts(client: TestClient, engine: Engine) -> None:
    first, second = (engine.encode([text])[0].ids for text in ("up", "order"))
    item = post(client, {"ids": first}, "/decode").json()
    assert item == ["up"]
    two = post(client, {"ids": [first, second], "skip_special_tokens": False}, "/decode").json()
    assert two == ["[CLS] up [SEP]", "[CLS] order [SEP]"]
    assert post(client, {"ids": []}, "/decode").json() == [""]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/tokenize", {"inputs": "a", "prompt_name": "query"}, "invalid_request"),
        ("/tokenize", {"inputs": ["a"] * 1025}, "too_many_texts"),
        ("/tokenize", {"inputs": "x" * 20_001}, "text_too_long"),
        ("/tokenize", {"inputs": ["up " * 3000] * 20}, "too_many_texts"),
        ("/tokenize", {"inputs": []}, "invalid_request"),
        ("/tokenize", {"inputs": [1]}, "invalid_request"),
        ("/tokenize", {}, "invalid_request"),
        ("/decode", {"ids": [-1]}, "invalid_request"),
        ("/decode", {"ids": [10**9]}, "invalid_request"),
        ("/decode", {"ids": [10**30]}, "invalid_request"),
        ("/decode", {"ids": [[1]] * 1025}, "too_many_texts"),
        ("/decode", {"ids": [1] * 20_001}, "text_too_long"),
        ("/decode", {"ids": [[1], [1] * 20_001]}, "text_too_long"),
        ("/decode", {"ids": [[1] * 15_000] * 4}, "too_many_texts"),  # 4 x 15,000 > 1024 x 48
        ("/decode", {"ids": ["a"]}, "invalid_request"),
    ],
)
def test_invalid_token_ids_are_refused(
    client: TestClient,
    path: str,
    body: dict[str, Any],
    code: str,
) -> None:
    refusal = problem(post(client, body, path), code)
    assert refusal["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/tokenize", {"inputs": ["a " * 8000]}), ("/decode", {"ids": [5] * 20_000})],
)
def test_other_requests_are_served_while_a_text_is_tokenized(
    registry: Registry, path: str, body: dict[str, Any]
) -> None:
    app = make_app(registry)

    async def test(client: httpx.AsyncClient) -> httpx.Response:
        answer = asyncio.create_task(client.post(path, json=body))
        turns = 0
        while not answer.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 100
        return await answer

    assert in_loop(app, test).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/tokenize", b'{"inputs":[%b"a"]}' % (b"1," * 500_000), "inputs.str: "),
        ("/decode", b'{"ids":[%b1]}' % (b'"",' * 500_000), "valid integer"),
        ("/explain", b"{%b}" % b",".join(b'"%d":1' % i for i in range(150_000)), "150001 errors"),
    ],
)
def test_a_request_with_many_errors_is_refused_at_once(
    client: TestClient, path: str, body: bytes, words: str
) -> None:
    began = time.process_time()
    assert words in problem(client.post(path, content=body), "invalid_request")["detail"]
    assert time.process_time() - began < 1
