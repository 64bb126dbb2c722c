"""The service follows an alias: new, damaged and replaced model versions."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from finsent.errors import InputError
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.registry.registry import Registry
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.http.app import build_app
from serve_app.sender import Sender
from serve_app.service.explain import explain
from serve_app.service.model import Model
from serve_app.service.service import Service
from tests.unit.api.apps import ENGINE, in_loop, post, problem
from tests.unit.models import (
    METRICS,
    TEXTS,
    saved_model,
)

pytestmark = [
    pytest.mark.cost(3, "serves a model to many requests"),
    pytest.mark.usefixtures("keep_threads"),
]


def test_alias_is_followed_under_load_without_a_failed_request(registry: Registry) -> None:
    service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
    asyncio.run(service.models.follow())
    versions = registry.aliases()
    expected = {
        version: Engine(registry.get(version).path, ENGINE).classify(TEXTS)
        for version in versions.values()
    }

    async def test(client: httpx.AsyncClient) -> None:
        seen: set[str] = set()
        done = False

        async def ask() -> None:
            while not done:
                for i, text in enumerate(TEXTS):
                    body = (await client.post("/predict", json={"text": text})).json()
                    seen.add(body["model_version"])
                    target = expected[body["model_version"]][i]
                    assert body["score"] == pytest.approx(target.score, abs=1e-5)

        askers = asyncio.gather(*(ask() for _ in range(8)))
        for turn in range(6):
            alias = ("challenger", "champion")[turn % 2]
            await service.models.follow(alias)
            seen.clear()
            while versions[alias] not in seen and not askers.done():
                await asyncio.sleep(0.01)
        done = True
        await askers

    in_loop(build_app(service, Keys(None)), test)


def test_version_that_is_broken_is_refused_and_the_old_one_stays(
    tiny: Path, tmp_path: Path
) -> None:
    own = Registry(tmp_path / "registry")
    good = own.publish(saved_model(tiny, tmp_path / "good", 3), METRICS, {})
    bad = own.publish(saved_model(tiny, tmp_path / "bad", 4), METRICS, {})
    own.promote(good.version, "champion")
    service = Service(own.root, ServeConfig(watch_seconds=0), EngineConfig(threads=1))
    asyncio.run(service.models.follow())
    (bad.path / "model.safetensors").chmod(0o644)
    with (bad.path / "model.safetensors").open("ab") as stream:
        stream.write(b"\0")

    async def test(client: httpx.AsyncClient) -> dict[str, Any]:
        with pytest.raises(InputError, match="SHA-256"):
            await service.models.follow(bad.version)
        answer = await client.post("/predict", json={"text": "Up"})
        assert answer.json()["model_version"] == good.version
        info: dict[str, Any] = (await client.get("/info")).json()
        return info

    info = in_loop(build_app(service, Keys(None)), test)
    assert info["model_version"] == good.version
    assert info["refused"]["version"] == bad.version
    assert "SHA-256" in info["refused"]["reason"]


def test_a_version_that_cannot_be_loaded_costs_little_and_does_not_end_the_watch(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    load = Model.load

    def broken(registry: Registry, reference: str, config: EngineConfig) -> Model:
        if reference == registry.aliases()["challenger"]:
            tried.append(reference)
            raise RuntimeError("bad allocation")
        return load(registry, reference, config)

    def unreadable() -> dict[str, str]:
        raise OSError("stale file handle")

    async def main() -> None:
        service = Service(registry.root, ServeConfig(watch_seconds=0.01), ENGINE)
        monkeypatch.setattr(Model, "load", broken)
        await service.models.follow()
        watching = asyncio.create_task(service.models.watch())
        with pytest.raises(InputError, match=r"cannot be loaded.*bad allocation"):
            await service.models.follow("challenger")
        await asyncio.sleep(0.3)
        assert len(tried) == 1
        assert service.models.refused_version is not None
        assert service.model.version == registry.aliases()["champion"]
        monkeypatch.setattr(service.registry, "aliases", unreadable)
        await asyncio.sleep(0.1)
        assert not watching.done()
        watching.cancel()

    asyncio.run(main())


def test_a_version_stays_until_its_requests_are_answered(registry: Registry) -> None:
    async def main() -> None:
        service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
        await service.models.follow()
        request = asyncio.create_task(service.classify(["Profit rose."]))
        await asyncio.sleep(0)  # it is being encoded, and not in the queue yet
        await asyncio.gather(asyncio.wait_for(service.model.retire(), 20), request)

        await service.models.follow("challenger")
        retired: list[asyncio.Task[None]] = []

        def retire(*_: Any) -> None:
            """Begin when the text is answered, before its words are."""
            retired.append(asyncio.create_task(service.model.retire()))

        service.answer_listeners.append(retire)
        explanation = await explain(service, "Profit rose.", None, Sender("1"))
        assert len(explanation.words) == 2
        await asyncio.wait_for(asyncio.gather(*retired), 20)

    asyncio.run(main())


def test_a_version_that_was_replaced_is_freed(registry: Registry) -> None:
    async def main() -> None:
        service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
        await service.models.follow()
        old = weakref.ref(service.model)
        gc.disable()  # a replica's first model is frozen: no collection looks at it
        try:
            await service.models.follow("challenger")
            for _ in range(1000):
                if old() is None:
                    break
                await asyncio.sleep(0.02)
            assert old() is None
        finally:
            gc.enable()

    asyncio.run(main())


def test_before_a_model_is_loaded_requests_are_refused(registry: Registry) -> None:
    service = Service(registry.root, ServeConfig(watch_seconds=0), ENGINE)
    with TestClient(build_app(service, Keys(None))) as client:
        problem(client.get("/readyz"), "not_ready")
        problem(post(client, {"text": "Up"}), "not_ready")
        assert client.get("/livez").status_code == 200
