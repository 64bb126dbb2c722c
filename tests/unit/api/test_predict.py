"""Predictions over HTTP: probabilities, logits, clients of TEI, explanations."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.registry.registry import Registry
from tests.unit.api.apps import post, problem
from tests.unit.models import (
    MAX_LENGTH,
    TEXTS,
)

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


def test_a_text_gets_the_answer_of_the_engine(
    client: TestClient, engine: Engine, registry: Registry
) -> None:
    for text, expected in zip(TEXTS, engine.classify(TEXTS), strict=True):
        response = post(client, {"text": text})
        body = response.json()
        assert response.status_code == 200
        assert body.keys() == {
            "label",
            "score",
            "probabilities",
            "polarity",
            "model_version",
            "calibration",
            "abstained",
            "truncated",
            "request_id",
        }
        assert body["label"] == expected.label
        assert body["score"] == pytest.approx(expected.score, abs=1e-5)
        assert body["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
        shares = expected.probabilities
        assert body["polarity"] == pytest.approx(shares["positive"] - shares["negative"], abs=1e-5)
        assert body["model_version"] == registry.aliases()["champion"]
        assert body["truncated"] == engine.encode([text])[0].truncated
        for name in ("x-queue-time", "x-inference-time"):
            assert float(response.headers[name]) >= 0
        assert response.headers["x-batch-size"] == "1"
        assert response.headers["x-request-id"] == body["request_id"]


def test_a_list_is_answered_in_order_with_errors_in_their_places(
    client: TestClient, engine: Engine
) -> None:
    texts = [*TEXTS, 3, "", None, "x" * 30_000, " \n", ["a"], "Profit rose."]
    body = post(client, {"texts": texts}).json()["predictions"]
    assert len(body) == len(texts)
    codes = [item.get("code") for item in body[len(TEXTS) :]]
    assert codes == ["invalid_text"] * 3 + ["text_too_long"] + ["invalid_text"] * 2 + [None]
    labels = [item["label"] for item in [*body[: len(TEXTS)], body[-1]]]
    assert labels == [item.label for item in engine.classify([*TEXTS, "Profit rose."])]


def test_empty_list_and_a_list_of_errors_are_answered(client: TestClient) -> None:
    assert post(client, {"texts": []}).json()["predictions"] == []
    assert [item["code"] for item in post(client, {"texts": [1, ""]}).json()["predictions"]] == [
        "invalid_text",
        "invalid_text",
    ]


def test_logits_and_truncation_on_request(client: TestClient, engine: Engine) -> None:
    long = "profit rose " * 100 + "loss fell " * 100
    raw = post(client, {"text": TEXTS[0], "raw_scores": True}).json()["raw_scores"]
    assert [*raw.values()] == pytest.approx(engine.logits([TEXTS[0]])[0].tolist(), abs=1e-4)
    right, left = (
        post(client, {"text": long, "truncate": side}).json() for side in ("right", "left")
    )
    assert right["truncated"]
    assert left["truncated"]
    assert right["probabilities"] != left["probabilities"]
    refusal = problem(post(client, {"text": long, "truncate": "error"}), "text_too_long")
    assert str(MAX_LENGTH) in refusal["detail"]
    listed = post(client, {"texts": [long, "Up"], "truncate": "error"}).json()["predictions"]
    assert listed[0]["code"] == "text_too_long"
    assert listed[1]["label"] in LABELS


def test_clients_of_text_embeddings_inference_are_understood(
    client: TestClient, engine: Engine
) -> None:
    single = post(client, {"inputs": TEXTS[0]}).json()
    assert [entry.keys() for entry in single] == [{"label", "score"}] * 3
    scores = [entry["score"] for entry in single]
    assert scores == sorted(scores, reverse=True)
    batch = post(client, {"inputs": [[TEXTS[0]], [TEXTS[1]]]}).json()
    assert [entry["label"] for entry in batch[0]] == [entry["label"] for entry in single]
    flat = post(client, {"inputs": TEXTS[:2], "truncate": True}).json()
    labels = [item.label for item in engine.classify(TEXTS[:2])]
    assert [entry[0]["label"] for entry in batch] == labels
    assert [entry[0]["label"] for entry in flat] == labels
    long = "order " * 100
    problem(post(client, {"inputs": long}), "text_too_long")  # as they refuse by default
    assert post(client, {"inputs": long, "truncate": True}).status_code == 200
    raw = post(client, {"inputs": TEXTS[0], "raw_scores": True}).json()
    assert {e["label"]: e["score"] for e in raw} == pytest.approx(
        dict(zip(LABELS, engine.logits([TEXTS[0]])[0].tolist(), strict=True)), abs=1e-4
    )
    problem(post(client, {"inputs": ["fine", 3]}), "invalid_text")
    # All that its own API names, and what huggingface_hub's client adds.
    full = {"inputs": "up " * 100 + "down " * 100, "raw_scores": False, "truncate": True}
    left, right = (
        post(client, {**full, "truncation_direction": side, "parameters": {}}).json()
        for side in ("Left", "Right")
    )
    assert {item["label"] for item in left} == {*LABELS}
    assert left != right
    problem(post(client, {"text": "Up", "parameters": {}}), "invalid_request")


def test_explanation_is_what_leaving_words_out_does(client: TestClient, engine: Engine) -> None:
    text = "Harrow cut  its outlook sharply."
    body = post(client, {"text": text}, "/explain").json()
    assert body["text"] == "Harrow cut its outlook sharply."
    prediction = engine.classify([text])[0]
    assert body["label"] == prediction.label
    assert [word["text"] for word in body["words"]] == body["text"].split()
    for word in body["words"]:
        assert body["text"][word["start"] : word["end"]] == word["text"]
        shortened = body["text"][: word["start"]] + body["text"][word["end"] :]
        without = engine.classify([shortened])[0].probabilities
        differences = {name: prediction.probabilities[name] - without[name] for name in LABELS}
        assert word["attribution"] == pytest.approx(differences[prediction.label], abs=1e-4)
        assert word["by_label"] == pytest.approx(differences, abs=1e-4)
    assert any(abs(word["attribution"]) > 0.01 for word in body["words"])


def test_long_and_blank_texts_are_explained_or_refused(client: TestClient) -> None:
    many = post(client, {"text": " ".join(f"word{i}" for i in range(500))}, "/explain").json()
    assert 32 <= len(many["words"]) <= 64
    assert many["words"][0]["text"].startswith("word0 word1")
    problem(post(client, {"text": " "}, "/explain"), "invalid_text")
    problem(post(client, {"texts": ["a"]}, "/explain"), "invalid_request")
    assert len(post(client, {"text": "Up"}, "/explain").json()["words"]) == 1
    for text in ("\u200b", "\ufeff", "&nbsp;"):  # nothing that the model would read
        problem(post(client, {"text": text}, "/explain"), "invalid_text")
        problem(post(client, {"text": text}), "invalid_text")
