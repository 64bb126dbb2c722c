"""Requests that name a source: the service applies the calibration of that source."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from finsent.errors import InputError
from finsent.inference.engine import Engine
from finsent.registry.registry import Registry
from serve_app.config import ServeConfig
from serve_app.service.service import Service
from tests.unit.api.apps import ENGINE, post, problem
from tests.unit.models import (
    TEXTS,
    publish_domain,
)

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


@pytest.fixture(scope="module")
def tweets(registry: Registry) -> Any:
    """Publish a calibration of the champion, and return an engine that uses it."""
    domain = publish_domain(registry, temperature=5.0)
    return Engine(registry.get("champion").path, ENGINE, domain=domain)


def test_a_source_picks_its_calibration_in_every_dialect(
    serving: Callable[..., TestClient], engine: Engine, tweets: Engine
) -> None:
    client = serving(calibrations={"x.com": "tweets", "news": None}, cache_entries=100)
    expected, own = tweets.classify(TEXTS), engine.classify(TEXTS)
    labels = [item.label for item in expected]
    assert labels != [item.label for item in own]  # a bias changes labels

    for _ in range(2):  # from the cache, too
        for source, target in (("x.com", expected), (None, own), ("news", own)):
            body: Any = {"texts": TEXTS, "source": source, "raw_scores": True}
            for item, want in zip(post(client, body).json()["predictions"], target, strict=True):
                assert item["calibration"] == ("tweets" if source == "x.com" else None)
                assert (item["label"], item["abstained"]) == (want.label, want.abstained)
                assert item["probabilities"] == pytest.approx(want.probabilities, abs=1e-5)
                scores = item["raw_scores"]
                assert max(scores, key=scores.__getitem__) == want.label

    for scores in ({}, {"raw_scores": True}):
        body = {"inputs": TEXTS, "source": "x.com", "truncate": True, **scores}
        assert [item[0]["label"] for item in post(client, body).json()] == labels
    cut = {"input": TEXTS, "source": "x.com", "truncate_prompt_tokens": -1}
    assert [item["label"] for item in post(client, cut, "/classify").json()["data"]] == labels
    answer = post(client, {"text": TEXTS[0], "source": "x.com"}, "/explain").json()
    assert (answer["label"], answer["calibration"]) == (labels[0], "tweets")
    sheet = client.post(
        "/predict/file?format=text&source=x.com",
        content="\n".join(TEXTS).encode(),
        headers={"content-type": "text/plain"},
    )
    rows = list(csv.DictReader(io.StringIO(sheet.text)))
    assert [(row["label"], row["calibration"]) for row in rows] == [(n, "tweets") for n in labels]
    calibrations = client.get("/info").json()["calibrations"]
    assert calibrations["news"] is None
    assert calibrations["x.com"].keys() == {"name", "id", "threshold", "sources", "rows"}


@pytest.mark.usefixtures("tweets")
def test_an_unknown_source_is_refused(serving: Callable[..., TestClient]) -> None:
    client = serving(calibrations=["tweets"])
    body = {"source": "tweetz"}
    for path, text in (("/predict", "text"), ("/predict", "inputs"), ("/explain", "text")):
        refusal = problem(post(client, {text: "Up", **body}, path), "unknown_source")
        assert "known: tweets" in refusal["detail"]
    assert post(client, {"input": "Up", **body}, "/classify").status_code == 400
    refused = client.post("/predict/file?source=tweetz", content=b"text\nUp\n")
    problem(refused, "unknown_source")


@pytest.mark.usefixtures("tweets")
def test_a_version_without_the_calibration_is_not_followed(registry: Registry) -> None:
    service = Service(registry.root, ServeConfig(calibrations={"t": "tweets"}), ENGINE)
    asyncio.run(service.models.follow())
    with pytest.raises(InputError, match=r"has no calibration of that name .known: none"):
        asyncio.run(service.models.follow("challenger"))
    assert service.model.version == registry.get("champion").version


def test_a_replaced_calibration_is_followed(registry: Registry, tweets: Engine) -> None:
    service = Service(registry.root, ServeConfig(calibrations={"a": "moving"}), ENGINE)
    for temperature in (2.0, 3.0):
        replaced = publish_domain(registry, name="moving", temperature=temperature)
        asyncio.run(service.models.follow())
        info: Any = service.models.calibrations()
        assert info["a"]["id"] == replaced.id
        used = service.models.calibration(service.model, "a")
        assert used.temperature == pytest.approx(temperature * tweets.temperature / 5.0)
