"""Micro-batches of many requests: no row waits without need, is lost, or gets another's answer."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from finsent.inference.backends import Logits
from finsent.inference.batching import Row
from serve_app.service.coalescer import Coalescer
from serve_app.service.streams import ThreadStreams

BUDGET, MOST = 512, 16


class Model:
    """Answers with the first id of the row, and records its batches."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.shapes: list[tuple[int, int]] = []
        self.seconds = seconds
        self.go = threading.Event()
        self.go.set()

    def __call__(self, rows: Sequence[Row]) -> Logits:
        self.go.wait(60)
        time.sleep(self.seconds)
        self.batches.append([row[0] for row in rows])
        self.shapes.append((len(rows), max(map(len, rows))))
        if any(row[0] < 0 for row in rows):
            raise RuntimeError("no such id")
        return np.array([[row[0], len(row), 0] for row in rows], np.float32)


def run(test: Callable[[Coalescer, Model], Awaitable[Any]], streams: int = 1) -> None:
    async def main() -> None:
        model = Model()
        queue = Coalescer(ThreadStreams(model, streams), BUDGET, MOST)
        try:
            await asyncio.wait_for(test(queue, model), 60)
            assert (queue.waiting_rows, queue.waiting_tokens, queue.running_tokens) == (0, 0, 0)
        finally:
            model.go.set()
            queue.close()

    asyncio.run(main())


def row(number: int, length: int = 5) -> list[int]:
    return [number] * length


def test_no_rows_are_answered_at_once() -> None:
    async def test(queue: Coalescer, model: Model) -> None:
        model.go.clear()
        busy = asyncio.create_task(queue.run([row(1)]))
        logits, timing = await asyncio.wait_for(queue.run([]), 5)
        assert (logits.shape, timing.rows) == ((0, 3), 0)
        model.go.set()
        await busy

    run(test)


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_each_row_is_answered_once_in_its_place(streams: int) -> None:
    draw = random.Random(streams)

    async def test(queue: Coalescer, model: Model) -> None:
        requests, number = [], 0
        for _ in range(200):
            size = draw.choice([1, 1, 1, 2, 40])
            requests.append([row(number + i, draw.randint(1, 128)) for i in range(size)])
            number += size
        result = await asyncio.gather(*(queue.run(rows) for rows in requests))
        for rows, (logits, timing) in zip(requests, result, strict=True):
            assert logits[:, 0].tolist() == [item[0] for item in rows]
            assert logits[:, 1].tolist() == [len(item) for item in rows]
            assert timing.rows >= 1
        assert sorted(n for batch in model.batches for n in batch) == [*range(number)]
        for rows_taken, longest in model.shapes:
            assert rows_taken <= MOST
            assert rows_taken == 1 or rows_taken * longest <= BUDGET

    run(test, streams)


def test_one_text_goes_at_once_and_others_gather_meanwhile() -> None:
    async def test(queue: Coalescer, model: Model) -> None:
        model.go.clear()
        first_task = asyncio.create_task(queue.run([row(0)]))
        await asyncio.sleep(0)
        other_tasks = [asyncio.create_task(queue.run([row(n)])) for n in range(1, 11)]
        await asyncio.sleep(0)
        assert queue.waiting_rows == 10
        model.go.set()
        await asyncio.gather(first_task, *other_tasks)
        assert [sorted(batch) for batch in model.batches] == [[0], [*range(1, 11)]]

    run(test)


def test_what_waits_is_shared_among_free_streams() -> None:
    async def test(queue: Coalescer, model: Model) -> None:
        await queue.run([row(n) for n in range(8)])
        assert sorted(map(len, model.batches)) == [4, 4]

    run(test, streams=2)


def test_rows_of_a_batch_are_about_as_long() -> None:
    draw = random.Random(3)

    async def test(queue: Coalescer, model: Model) -> None:
        rows = [row(n, draw.randint(4, 120)) for n in range(600)]
        await queue.run(rows)
        padded = sum(count * longest for count, longest in model.shapes)
        assert 1 - sum(map(len, rows)) / padded < 0.1

    run(test)


def test_a_long_list_does_not_hold_up_a_single_text() -> None:
    async def test(queue: Coalescer, model: Model) -> None:
        model.go.clear()
        bulk = asyncio.create_task(queue.run([row(n, 20) for n in range(1000)]))
        await asyncio.sleep(0)
        single = asyncio.create_task(queue.run([row(5000, 90)]))  # of another length
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(single, bulk)
        assert model.batches.index([5000]) <= 3

    run(test)


def test_rows_of_a_client_that_left_never_reach_the_model() -> None:
    async def test(queue: Coalescer, model: Model) -> None:
        model.go.clear()
        first_task = asyncio.create_task(queue.run([row(0)]))
        await asyncio.sleep(0)
        left = asyncio.create_task(queue.run([row(n) for n in range(1, 300)]))
        stays = asyncio.create_task(queue.run([row(500)]))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert queue.waiting_rows == 1
        model.go.set()
        await asyncio.gather(first_task, stays)
        assert model.batches == [[0], [500]]

    run(test)


def test_a_failing_batch_fails_its_requests_alone() -> None:
    async def test(queue: Coalescer, _model: Model) -> None:
        with pytest.raises(RuntimeError, match="no such id"):
            await queue.run([row(-1, 100), *(row(n, 100) for n in range(40))])
        logits, _ = await queue.run([row(7)])
        assert logits[0, 0] == 7

    run(test)


def test_time_to_drain_follows_the_rate_measured() -> None:
    async def test(queue: Coalescer, model: Model) -> None:
        assert queue.drain_seconds == 0
        model.seconds = 0.02
        rates = []
        for n in range(5):
            _, timing = await queue.run([row(n, 100)])
            rates.append(100 / timing.computed)
        assert min(rates) <= queue.rate <= max(rates) < 5000  # 100 tokens in more than 20 ms
        model.go.clear()
        waiting = asyncio.create_task(queue.run([row(n, 100) for n in range(50)]))
        await asyncio.sleep(0)
        assert queue.drain_seconds == pytest.approx(5000 / queue.rate)
        model.go.set()
        _, timing = await waiting
        assert timing.queued > 0.1
        assert timing.computed >= 0.02

    run(test)
