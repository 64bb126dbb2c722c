"""Invalid requests: the problem, its status and its message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serve_app.config import LimitsConfig
from tests.properties import examples
from tests.unit.api.apps import post, problem

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ('{"text": "\\ud800"}', "invalid_json"),  # half a surrogate pair
        ("[" * 50_000, "invalid_json"),
        ("[1]", "invalid_request"),
        ("null", "invalid_request"),
        ("{}", "invalid_request"),
        ('{"text": "a", "texts": ["b"]}', "invalid_request"),
        ('{"text": 3}', "invalid_request"),
        ('{"texts": "a"}', "invalid_request"),
        ('{"text": "a", "raw_scores": "yes"}', "invalid_request"),
        ('{"text": "a", "truncate": "middle"}', "invalid_request"),
        ('{"text": "a", "truncate": true}', "invalid_request"),
        ('{"text": "a", "txet": "b"}', "invalid_request"),
        ('{"text": ""}', "invalid_text"),
        ('{"text": "\\u0000"}', "invalid_text"),  # nothing is left after normalization
        ('{"text": "\\u200b\\ufeff"}', "invalid_text"),
        (json.dumps({"text": "x" * 20_001}), "text_too_long"),
        (json.dumps({"texts": ["a"] * 1025}), "too_many_texts"),
        (json.dumps({"text": "x" * (3 << 20)}), "body_too_large"),
    ],
)
def test_invalid_requests_get_the_matching_problem(
    client: TestClient, body: str, code: str
) -> None:
    problem(client.post("/predict", content=body), code)


def test_messages_name_field_and_limit(client: TestClient) -> None:
    assert "txet" in problem(post(client, {"text": "a", "txet": 1}), "invalid_request")["detail"]
    refusal = problem(post(client, {"texts": ["a"] * 1025}), "too_many_texts")
    assert "1024" in refusal["detail"]
    assert "serve.limits.texts" in refusal["detail"]


def test_compressed_bodies_are_not_unpacked(client: TestClient) -> None:
    response = client.post("/predict", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    problem(response, "unsupported_media_type")


def test_body_without_a_length_is_cut_off_at_the_limit(
    serving: Callable[..., TestClient],
) -> None:
    client = serving(limits=LimitsConfig(body_bytes=2000))
    pieces = (b"x" * 500 for _ in range(10))
    problem(client.post("/predict", content=pieces), "body_too_large")


def test_unknown_paths_and_methods(client: TestClient) -> None:
    problem(client.get("/nope"), "not_found")
    result = client.get("/predict")
    problem(result, "method_not_allowed")
    assert "POST" in result.headers["allow"]


def test_request_ids_are_kept_where_they_are_plain(client: TestClient) -> None:
    assert post(client, {"text": "Up"}, x_request_id="desk-17").json()["request_id"] == "desk-17"
    for odd in ("", "x" * 200):
        assert post(client, {"text": "Up"}, x_request_id=odd).json()["request_id"] != odd


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(["text", "texts", "inputs", "raw_scores", "truncate"]),
)
@examples(100)
def test_no_json_causes_an_internal_error(client: TestClient, value: Any, field: str) -> None:
    body = json.dumps({field: value} if field != "raw_scores" else {"text": "a", field: value})
    for path in ("/predict", "/explain"):
        assert client.post(path, content=body).status_code < 500, body


@given(st.binary(max_size=400))
@examples(60)
def test_no_bytes_cause_an_internal_error(client: TestClient, body: bytes) -> None:
    for path in ("/predict", "/explain", "/predict/file"):
        assert client.post(path, content=body).status_code < 500
