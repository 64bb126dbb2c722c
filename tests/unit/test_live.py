"""`user_config` of a running service, and what a service follows."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from finsent.config import check
from finsent.errors import ConfigError, InputError
from finsent.inference.config import EngineConfig
from finsent.metrics_record import StoredMetrics
from finsent.registry.gate import Clearance, Gate
from finsent.registry.registry import Registry
from ray_jobs._settings import JobSettings
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.http.app import build_app
from serve_app.service.explain import follow_gateway
from serve_app.service.model import Model
from serve_app.service.service import Service
from serve_app.service.user_config import apply_user_config
from tests.unit.models import publish_domain, saved_model

METRICS = StoredMetrics(rows=1, macro_f1=1.0, accuracy=1.0, ece=0.1, labels={})


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("live")
    registry = Registry(folder / "registry")
    model = saved_model(tiny, folder / "model", 3)
    registry.promote(registry.publish(model, METRICS, {}).version, "champion")
    return registry


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("user_config", "error", "named"),
    [
        ({"modle": "champion"}, ConfigError, "user_config.modle: unknown key. Use model, shadow"),
        ({"limits": {"text": 3}}, ConfigError, "serve.limits.text"),
        ({"model": "nobody"}, InputError, "nobody"),
        ({"model": "run:nightly"}, InputError, "Write alias:NAME or version:ID."),
        ({"shadow": "nobody", "limits": {"texts": 3}}, InputError, "nobody"),
    ],
)
def test_a_refused_user_config_is_reported_until_the_next(
    registry: Registry,
    caplog: pytest.LogCaptureFixture,
    user_config: dict[str, Any],
    error: type[Exception],
    named: str,
) -> None:
    service = Service(registry.root, ServeConfig(watch_seconds=0), EngineConfig(threads=1))
    asyncio.run(service.models.follow())
    settings = check(JobSettings, {})
    texts = service.config.limits.texts
    with TestClient(build_app(service, Keys(None))) as client:
        assert client.get("/info").json()["user_config_refused"] is None
        with pytest.raises(error):
            asyncio.run(apply_user_config(service, settings, user_config))
        assert named in client.get("/info").json()["user_config_refused"]
        assert "finsent_user_config_refused 1.0" in client.get("/metrics").text
        [line] = [item for item in caplog.records if item.levelno == logging.ERROR]
        assert line.message.startswith("user_config is refused: ")
        assert named in line.message
        assert service.config.limits.texts == texts
        assert service.models.reference == "champion"
        assert client.post("/predict", json={"text": "Up"}).status_code == 200

        asyncio.run(
            apply_user_config(service, settings, {"limits": {"texts": 3}, "model": "champion"})
        )
        body = client.get("/info").json()
        assert (body["user_config_refused"], body["limits"]["texts"]) == (None, 3)
        assert "finsent_user_config_refused 0.0" in client.get("/metrics").text


@pytest.mark.usefixtures("one_thread")
def test_a_calibration_is_added_to_a_running_service(registry: Registry) -> None:
    service = Service(registry.root, ServeConfig(watch_seconds=0), EngineConfig(threads=1))
    asyncio.run(service.models.follow())
    settings = check(JobSettings, {})
    with TestClient(build_app(service, Keys(None))) as client:
        body = {"text": "Up", "source": "x.com"}
        assert client.post("/predict", json=body).status_code == 422
        change = {"calibrations": {"x.com": "tweets"}}
        with pytest.raises(InputError, match=r"serve.calibrations='tweets': .*known: none"):
            asyncio.run(apply_user_config(service, settings, change))
        assert client.post("/predict", json=body).status_code == 422
        publish_domain(registry)
        asyncio.run(apply_user_config(service, settings, change))
        assert client.post("/predict", json=body).json()["calibration"] == "tweets"
        asyncio.run(apply_user_config(service, settings, {}))
        assert client.post("/predict", json=body).status_code == 422


@pytest.mark.usefixtures("one_thread")
def test_an_explainer_retries_the_calibrations_of_its_gateway(registry: Registry) -> None:
    service = Service(registry.root, ServeConfig(watch_seconds=0), EngineConfig(threads=1))
    tags: dict[str, str | None] = {"x.com": "later"}

    async def main() -> None:
        await service.models.follow()
        await follow_gateway(service, "champion", tags)
        assert service.models.calibrations() == {}  # of before: there is none of the name
        publish_domain(registry, name="later")
        await follow_gateway(service, "champion", tags)
        info: Any = service.models.calibrations()
        assert info["x.com"]["name"] == "later"

    asyncio.run(main())


@pytest.mark.usefixtures("one_thread")
def test_a_version_without_a_calibration_is_refused_before_it_is_loaded(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServeConfig(calibrations={"t": "nobody-made-it"})
    service = Service(registry.root, config, EngineConfig(threads=1))
    loads: list[str] = []
    load = Model.load

    def counted(registry: Registry, reference: str, config: EngineConfig) -> Model:
        loads.append(reference)
        return load(registry, reference, config)

    monkeypatch.setattr(Model, "load", counted)
    with pytest.raises(InputError, match="has no calibration of that name"):
        asyncio.run(service.models.follow())
    assert loads == []
    with pytest.raises(InputError, match="'nobody': no such alias"):
        asyncio.run(service.models.follow("nobody"))


def test_watching_ends_at_once_if_watch_seconds_is_zero(tmp_path: Path) -> None:
    service = Service(tmp_path, ServeConfig(watch_seconds=0), EngineConfig(threads=1))
    asyncio.run(asyncio.wait_for(service.models.watch(), 5))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("followed", ["champion", "alias:champion"])
def test_info_has_the_gate_of_the_followed_alias(tiny: Path, tmp_path: Path, followed: str) -> None:
    """The gate of the step that moved the alias, not that of the version's first publishing."""
    registry = Registry(tmp_path / "registry")
    item, two = (
        registry.publish(saved_model(tiny, tmp_path / str(seed), seed), METRICS, {}).version
        for seed in (3, 4)
    )

    def gate(against: str, forced: bool) -> Gate:
        return Gate(against, "cannot tell", forced, "3 rows", 0.06, 100, ["weak"], 1000, 0, [])

    registry.promote(item, "champion")
    config = ServeConfig(watch_seconds=0, model=followed)
    service = Service(registry.root, config, EngineConfig(threads=1))
    with TestClient(build_app(service, Keys(None))) as client:

        def shown() -> Any:
            asyncio.run(service.models.follow())
            return client.get("/info").json()["gate"]

        assert shown() is None
        registry.promote(two, "champion", Clearance(item, gate(item, True)))
        registry.promote(item, "champion", Clearance(two, gate(two, True)))
        assert shown() == {
            "outcome": "cannot tell",
            "forced": True,
            "against": two,
            "margin": 0.06,
            "min_rows": 100,
            "weakened": ["weak"],
        }
        registry.promote(two, "champion", Clearance(item, gate(item, False)))
        assert (shown()["against"], shown()["forced"]) == (item, False)
