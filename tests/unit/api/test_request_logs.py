"""Log lines of requests."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from tests.unit.api.apps import post

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


@pytest.mark.parametrize("is_logged", [False, True])
def test_texts_are_logged_only_if_configured(
    serving: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, is_logged: bool
) -> None:
    client = serving(log_texts=is_logged)
    with caplog.at_level(logging.INFO, "finsent.requests"):
        post(client, {"text": "Zürich sold its stake."}, x_request_id="desk-9")
        post(client, {"texts": ["Zürich sold its stake.", ""]})
        post(client, {"text": "Zürich " * 60, "truncate": "error"})
    message = caplog.text
    assert ("Zürich sold its stake." in message) == is_logged
    assert ("Zürich" in message) == is_logged
    assert "text_too_long" in message


@pytest.mark.parametrize("every", [False, True])
def test_each_request_is_logged_if_configured(
    serving: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, every: bool
) -> None:
    client = serving(log_requests=every)
    with caplog.at_level(logging.INFO, "finsent.requests"):
        version = post(client, {"text": "Up"}, x_request_id="desk-1").json()["model_version"]
        post(client, {"text": ""}, x_request_id="desk-2")
    lines = [json.loads(item.message) for item in caplog.records if item.name == "finsent.requests"]
    if every:
        good = lines.pop(0)
        assert (good["request_id"], good["status"], good["code"]) == ("desk-1", 200, None)
        assert (good["operation"], good["model_version"]) == ("predict", version)
        assert 0 < good["inference_seconds"] < good["seconds"]
    [bad] = lines
    assert (bad["request_id"], bad["status"], bad["code"]) == ("desk-2", 422, "invalid_text")
