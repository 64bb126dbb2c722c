"""Split topology without classifiers, with cancelled micro-batches, and with a busy classifier."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from finsent.inference.backends import Logits
from finsent.inference.batching import Row
from finsent.inference.config import EngineConfig
from serve_app.config import ServeConfig
from serve_app.problems import Problem
from serve_app.service.coalescer import Coalescer, Timing
from serve_app.service.service import Service
from serve_app.service.streams import Computed, ThreadStreams
from serve_app.split.loads import LOADS
from serve_app.split.remote import RemoteStreams


class Cancelled(ThreadStreams):
    """The first micro-batch is cancelled, as a task of a call to a classifier may be."""

    is_first = True

    def submit(self, rows: Sequence[Row], *arguments: Any) -> asyncio.Future[Computed]:
        future = super().submit(rows, *arguments)
        if self.is_first:
            future.cancel()
        self.is_first = False
        return future


class Waiting(ThreadStreams):
    """The stream begins 50 ms after the gateway has sent a micro-batch."""

    def submit(self, rows: Sequence[Row], *arguments: Any) -> asyncio.Future[Computed]:
        async def later() -> Computed:
            await asyncio.sleep(0.05)
            return await super(Waiting, self).submit(rows, *arguments)

        return asyncio.get_running_loop().create_task(later())


def zeros(rows: Sequence[Row]) -> Logits:
    return np.zeros((len(rows), 3), np.float32)


def test_a_gateway_without_classifiers_is_not_ready(tmp_path: Path) -> None:
    service = Service(tmp_path, ServeConfig(), EngineConfig())
    info: Any = SimpleNamespace(streams=1)
    streams = RemoteStreams(SimpleNamespace(), "v1", info)  # type: ignore[arg-type]
    service.models._model = SimpleNamespace(coalescer=Coalescer(streams, 512, 16))  # type: ignore[assignment]
    LOADS.set_classifiers(["a"])
    service.check_ready()
    LOADS.set_classifiers([])
    with pytest.raises(Problem, match="no classifier runs") as caught:
        service.check_ready()
    assert caught.value.status == 503


def test_a_gateway_with_an_engine_is_ready_when_its_model_is_loaded(tmp_path: Path) -> None:
    service = Service(tmp_path, ServeConfig(), EngineConfig())
    with pytest.raises(Problem, match="the model is being loaded"):
        service.check_ready()
    queue = Coalescer(ThreadStreams(zeros, 1), 512, 16)
    service.models._model = SimpleNamespace(coalescer=queue)  # type: ignore[assignment]
    service.check_ready()


def test_requests_of_a_cancelled_micro_batch_end_and_later_ones_are_answered() -> None:
    async def main() -> None:
        queue = Coalescer(Cancelled(zeros, 1), 512, 16)
        with pytest.raises(RuntimeError, match="the micro-batch was cancelled"):
            await asyncio.wait_for(queue.run([[1, 2]]), 5)
        logits, _ = await asyncio.wait_for(queue.run([[1, 2]]), 5)
        assert logits.shape == (1, 3)
        assert (queue.waiting_rows, queue.running_tokens) == (0, 0)

    asyncio.run(main())


def test_the_queue_time_includes_the_time_before_a_classifier_begins() -> None:
    async def main() -> Timing:
        return (await Coalescer(Waiting(zeros, 1), 512, 16).run([[1, 2]]))[1]

    timing = asyncio.run(main())
    assert timing.queued >= 0.05 > timing.computed
