"""A classifier: the logits of the engine, the versions that it holds, and its health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.registry.registry import Registry
from serve_app.split import classifier as module
from serve_app.split.classifier import Classifier
from serve_app.split.messages import (
    ComputedBatch,
    EngineInfo,
    MicroBatch,
    NotLoaded,
    RefusedLoad,
    pack,
)
from tests.unit.models import TEXTS, published

pytestmark = pytest.mark.usefixtures("keep_threads")

ENGINE = EngineConfig(precision="fp32", threads=1)


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    folder = tmp_path_factory.mktemp("classifier")
    return published(tiny, folder, ENGINE, ("champion", "challenger"))


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(
    registry: Registry, test: Callable[[Classifier], Awaitable[Any]], num_gpus: float = 0
) -> Any:
    async def main() -> Any:
        clock: Any = Clock()
        return await test(Classifier("replica", registry, ENGINE, num_gpus, clock))

    return asyncio.run(main())


def micro_batch(version: str, rows: list[list[int]], waiting: float = 0.0) -> MicroBatch:
    ids, lengths = pack(rows)
    return MicroBatch(1, "gateway", version, ids, lengths, waiting)


def test_logits_equal_those_of_the_engine_bit_for_bit(registry: Registry) -> None:
    version = registry.get("champion")
    engine = Engine(version.path, ENGINE)
    rows = [row.ids for row in engine.encode(TEXTS)]

    async def test(classifier: Classifier) -> None:
        info = await classifier.load("champion")
        assert isinstance(info, EngineInfo)
        assert (info.backend, info.device, info.streams) == ("onnxruntime-fp32", "cpu", 1)
        answer = await classifier.compute(micro_batch(version.version, rows, waiting=500.0))
        assert isinstance(answer, ComputedBatch)
        assert np.array_equal(answer.logits, engine.compute(rows))
        assert answer.seconds > 0
        assert classifier.drain_seconds > 0  # the gateway has more rows
        classifier.check()

    run(registry, test)


@pytest.mark.cost(0.5, "loads two versions")
def test_a_version_is_loaded_when_a_gateway_needs_it_and_released_later(
    registry: Registry,
) -> None:
    first, second = (registry.get(alias).version for alias in ("champion", "challenger"))

    async def test(classifier: Classifier) -> None:
        with pytest.raises(RuntimeError, match="no model is loaded"):
            classifier.check()
        both = await asyncio.gather(*(classifier.load(first) for _ in range(2)))
        assert both[0] is both[1]  # one load
        batch = micro_batch(second, [[1, 2]])
        assert await classifier.compute(batch) == NotLoaded("replica")
        await classifier.load(second)
        assert isinstance(await classifier.compute(batch), ComputedBatch)
        clock: Any = classifier.clock
        classifier.check()
        assert isinstance(await classifier.compute(micro_batch(first, [[1]])), ComputedBatch)
        clock.now = 61.0
        classifier.check()
        assert await classifier.compute(micro_batch(first, [[1]])) == NotLoaded("replica")
        assert isinstance(await classifier.compute(batch), ComputedBatch)
        await classifier.load(first)  # a rollback: the second version is the old one now
        clock.now = 200.0
        classifier.check()
        assert isinstance(await classifier.compute(micro_batch(first, [[1]])), ComputedBatch)

    run(registry, test)


def test_a_version_that_cannot_be_used_is_refused_with_its_reason(registry: Registry) -> None:
    async def unknown(classifier: Classifier) -> None:
        answer = await classifier.load("nobody")
        assert isinstance(answer, RefusedLoad)
        assert "nobody" in answer.reason

    async def without_gpu(classifier: Classifier) -> None:
        answer = await classifier.load("champion")
        assert isinstance(answer, RefusedLoad)
        assert answer.reason.startswith("serve.num_gpus=0.5: onnxruntime-fp32 computes on the CPU")

    run(registry, unknown)
    run(registry, without_gpu, num_gpus=0.5)


def test_micro_batches_that_fail_in_a_row_make_it_unhealthy(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenEngine(Engine):
        def compute(self, rows: Any) -> Any:
            raise RuntimeError(f"CUDA error at {len(rows)} rows")

        def warm_up(self) -> None:
            pass

    monkeypatch.setattr(module, "Engine", BrokenEngine)
    version = registry.get("champion").version

    async def test(classifier: Classifier) -> None:
        await classifier.load(version)
        for _ in range(3):
            classifier.check()
            with pytest.raises(RuntimeError, match="CUDA error"):
                await classifier.compute(micro_batch(version, [[1]]))
        with pytest.raises(RuntimeError, match="3 micro-batches failed in a row"):
            classifier.check()

    run(registry, test)
