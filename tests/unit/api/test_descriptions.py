"""What the service reports about itself: model, card, metrics, OpenAPI, pages."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.registry.registry import Registry
from finsent.registry.version_manifest import CARD
from serve_app.http.pages import pages
from tests.unit.api.apps import post
from tests.unit.models import (
    MAX_LENGTH,
    TEXTS,
)

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


# --- models ---------------------------------------------------------------------------------------


def test_info_describes_the_model(client: TestClient, registry: Registry) -> None:
    info = client.get("/info").json()
    assert info["model_version"] == registry.aliases()["champion"]
    assert (info["labels"], info["max_length"]) == (list(LABELS), MAX_LENGTH)
    assert info["backend"] == "onnxruntime-fp32"
    assert info["limits"]["texts"] == 1024
    assert info["gate"] is None  # the first champion
    assert client.get("/health").json()["status"] == "ok"


def test_the_model_card_is_returned(client: TestClient, registry: Registry) -> None:
    response = client.get("/model-card")
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    assert response.text == (registry.get("champion").path / CARD).read_text(encoding="utf-8")


def test_metrics_count_requests_texts_and_tokens(
    serving: Callable[..., TestClient], engine: Engine
) -> None:
    client = serving()
    texts = [*TEXTS, "order " * 60]
    post(client, {"texts": [*texts, 3]})
    post(client, {"text": ""})
    text = client.get("/metrics").text
    assert 'finsent_requests_total{operation="predict",status="200"} 1.0' in text
    assert 'finsent_requests_total{operation="predict",status="422"} 1.0' in text
    assert 'finsent_problems_total{code="invalid_text"} 1.0' in text
    assert 'finsent_text_problems_total{code="invalid_text"} 2.0' in text
    lengths = [len(item.ids) for item in engine.encode(texts)]
    assert f'finsent_tokens_total{{kind="text"}} {sum(lengths)}.0' in text
    assert 'finsent_stage_seconds_count{stage="inference"} 1.0' in text
    truncated = sum(item.truncated for item in engine.encode(texts))
    assert truncated
    assert f'finsent_marked_predictions_total{{mark="truncated"}} {truncated}.0' in text
    counts = [
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("finsent_predictions_total")
    ]
    assert sum(counts) == len(texts)


# --- keys, origins, pages -------------------------------------------------------------------------


def test_pages_load_nothing_from_other_hosts(client: TestClient) -> None:
    paths = pages()
    assert {"/", "/docs", "/page.js", "/page.css", "/docs.js"} < paths.keys()
    for path in paths:
        response = client.get(path)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert "http://" not in response.text
        assert "https://" not in response.text
        # A reverse proxy may serve the page below any path.
        assert not re.search(r"""(href|src)="/|(fetch|ask|post)\(["'`]/|from "/""", response.text)
    assert client.get("/").headers["content-type"].startswith("text/html")


def test_the_openapi_document_has_all_paths(client: TestClient) -> None:
    body = client.get("/openapi.json").json()
    assert body["openapi"].startswith("3.1")
    assert {
        "/predict",
        "/explain",
        "/predict/file",
        "/info",
        "/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/",
        "/invocations",
        "/tokenize",
        "/decode",
        "/ping",
        "/classify",
        "/v1/classify",
        "/v1/models",
        "/model-card",
    } == body["paths"].keys()
    statuses = body["paths"]["/predict"]["post"]["responses"].keys()
    assert {"200", "400", "401", "413", "422", "429", "503", "504"} <= statuses
    for name in ("PredictAnswer", "PredictList", "ProblemAnswer", "PredictRequest"):
        assert name in body["components"]["schemas"]
