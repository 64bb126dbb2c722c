"""Side branches: batches of items, and the counts of the shadow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from finsent.errors import ConfigError, InputError
from finsent.inference.config import EngineConfig
from finsent.registry.registry import Registry
from finsent.rollout.shadows import Shadows
from finsent.storage import Location
from serve_app.config import ServeConfig
from serve_app.deployments import branches
from serve_app.deployments.branches import Branch
from serve_app.deployments.shadow import Shadow, report, shadow_listener
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.answer import Answer
from serve_app.service.service import Service
from serve_app.service.user_config import with_user_config
from serve_app.settings import ServiceSettings
from tests.unit.models import TEXTS, publish_domain, published

pytestmark = pytest.mark.usefixtures("keep_threads")

ENGINE = EngineConfig(precision="fp32", threads=1)


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("branches")
    return published(tiny, folder, ENGINE, ("champion", "challenger"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "_GATHER_SECONDS", 0.01)


async def done(branch: Branch[Any]) -> None:
    if branch._task is not None:
        await branch._task


# --- branches -------------------------------------------------------------------------------------


def test_items_are_sent_in_one_call_in_the_background() -> None:
    calls: list[list[Any]] = []

    async def send(items: list[Any]) -> None:
        await asyncio.sleep(0.01)
        calls.append(items)

    async def main() -> Branch[Any]:
        branch = Branch("b", send)
        for i in range(10):
            branch.offer([{"i": i}])
        assert calls == []  # no call yet
        await done(branch)
        branch.offer([{"i": 10}])  # it begins anew
        await done(branch)
        return branch

    branch = asyncio.run(main())
    assert calls == [[{"i": i} for i in range(10)], [{"i": 10}]]
    assert (branch.sent, branch.lost) == (11, 0)


def test_items_without_room_and_failed_calls_are_counted_as_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(branches, "_MAX_WAITING", 3)

    async def send(items: list[Any]) -> None:
        if items[0]["i"] == 0:
            raise RuntimeError("it is gone")

    async def main() -> Branch[Any]:
        branch = Branch("b", send)
        branch.offer([{"i": i} for i in range(5)])
        assert branch.lost == 2
        await done(branch)
        assert branch.lost == 5
        branch.offer([{"i": 7}])
        await done(branch)
        return branch

    branch = asyncio.run(main())
    assert (branch.sent, branch.lost) == (1, 5)


def test_waiting_items_are_sent_before_the_replica_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "_GATHER_SECONDS", 3600.0)
    calls: list[list[Any]] = []

    async def send(items: list[Any]) -> None:
        calls.append(items)

    async def main() -> None:
        idle, branch = Branch("a", send), Branch("b", send)
        branch.offer([{"i": 1}])
        await asyncio.wait_for(asyncio.gather(idle.close(), branch.close()), 60)

    asyncio.run(main())
    assert calls == [[{"i": 1}]]


# --- the shadow -----------------------------------------------------------------------------------


def ask(
    registry: Registry,
    config: ServeConfig,
    texts: list[Any],
    make_listener: Any,
    source: str | None = None,
) -> list[Any]:
    """Return what a listener offers to its branch for one request."""
    result: list[Any] = []

    async def send(items: list[Any]) -> None:
        result.extend(items)

    async def main() -> None:
        service = Service(registry.root, config, ENGINE)
        await service.models.follow()
        branch = Branch("b", send)
        service.answer_listeners.append(make_listener(service, branch))
        await service.answer(texts, None, Sender("request-1", "desk"), source)
        await done(branch)

    asyncio.run(main())
    return result


def test_the_shadow_gets_its_share_of_the_texts(registry: Registry) -> None:
    texts = TEXTS * 20
    assert ask(registry, ServeConfig(), texts, shadow_listener) == []  # none is named
    everything = ask(registry, ServeConfig(shadow="challenger"), [*texts, "", 3], shadow_listener)
    assert [item.text for item in everything] == texts
    half = ServeConfig(shadow="challenger", shadow_share=0.5)
    assert 0 < len(ask(registry, half, texts, shadow_listener)) < len(texts)


def reports(shadows: Shadows) -> list[Any]:
    return [report(record, 0.02) for record in shadows.records()]


def test_the_shadow_counts_how_often_it_agrees(registry: Registry, tmp_path: Path) -> None:
    shadows = Shadows(Location.at(tmp_path))
    items = ask(registry, ServeConfig(shadow="challenger"), TEXTS, shadow_listener)

    async def main() -> list[Any]:
        service = Service(registry.root, ServeConfig(), ENGINE)
        await Shadow(service, shadows).compare("champion", items)
        await Shadow(service, shadows).compare("challenger", items)
        shadow = Shadow(service, shadows)  # of another process: the counts continue
        await shadow.compare("challenger", items)
        with pytest.raises(InputError):
            await shadow.compare("nobody", items)
        answers, _ = await service.classify(TEXTS)
        expected = [entry.prediction.label for entry in answers if isinstance(entry, Answer)]
        same, other = reports(shadows)
        agreeing = sum(a == b.label for a, b in zip(expected, items, strict=True))
        assert other["same_labels"] == pytest.approx(agreeing / len(TEXTS))
        for item, label in zip(items, expected, strict=True):
            assert other["confusion"][item.label][label] >= 2
        return [same, other]

    same, other = asyncio.run(main())
    assert same["model_version"] == same["shadow_version"] == other["model_version"]
    assert other["shadow_version"] == registry.aliases()["challenger"]
    assert (same["texts"], other["texts"]) == (len(TEXTS), 2 * len(TEXTS))
    assert (same["same_labels"], same["mean_difference"]) == (1.0, pytest.approx(0.0, abs=1e-6))
    assert 0 < other["mean_difference"] < 1
    assert sum(sum(row.values()) for row in other["confusion"].values()) == 2 * len(TEXTS)


def test_the_shadow_uses_its_calibration_of_the_same_name(
    registry: Registry, tmp_path: Path
) -> None:
    shadows = Shadows(Location.at(tmp_path))
    publish_domain(registry)
    config = ServeConfig(shadow="challenger", calibrations={"x.com": "tweets"})
    items = ask(registry, config, TEXTS, shadow_listener, "x.com")
    assert {item.calibration for item in items} == {"tweets"}

    async def main() -> list[Any]:
        shadow = Shadow(Service(registry.root, ServeConfig(), ENGINE), shadows)
        await shadow.compare("champion", items)
        await shadow.compare("challenger", items)
        return reports(shadows)

    same, other = asyncio.run(main())
    assert (same["same_labels"], same["uncalibrated"]) == (1.0, 0)
    assert same["mean_difference"] == pytest.approx(0.0, abs=1e-6)
    assert other["uncalibrated"] == len(TEXTS)


# --- user_config ----------------------------------------------------------------------------------


def test_user_config_changes_model_limits_budget_and_shadow(registry: Registry) -> None:
    settings = ServiceSettings()
    new = with_user_config(
        settings,
        {"model": "challenger", "limits": {"texts": 2}, "token_budget": 64, "shadow": "champion"},
    )
    assert (new.serve.model, new.serve.shadow, new.engine.token_budget) == (
        "challenger",
        "champion",
        64,
    )
    assert new.serve.limits.replaced(texts=1024) == settings.serve.limits
    assert with_user_config(settings, {}) == settings

    async def main() -> None:
        service = Service(registry.root, settings.serve, ENGINE)
        await service.models.follow()
        await service.answer(TEXTS, None, Sender("before"))
        service.apply(new.serve, new.engine)
        assert service.model.coalescer.budget == 64
        with pytest.raises(Problem, match="at most 2") as error:
            await service.answer(TEXTS, None, Sender("after"))
        assert error.value.code == "too_many_texts"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("user_config", "named"),
    [
        ({"modle": "champion"}, "user_config.modle"),
        ({"limits": {"texts": 0}}, "serve.limits.texts"),
        ({"limits": {"text": 5}}, "serve.limits.text"),
        ({"limits": 5}, "user_config.limits"),
        ({"token_budget": "much"}, "engine.token_budget"),
        ({"shadow_share": 2}, "serve.shadow_share"),
    ],
)
def test_an_invalid_user_config_is_refused_with_its_key(
    user_config: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        with_user_config(ServiceSettings(), user_config)
