"""The choice of a classifier, the work that waits for one, and micro-batches on their way."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from ray.exceptions import ActorDiedError

from finsent.errors import InputError
from finsent.inference.backends.padding import rounded, unchanged
from finsent.inference.batching import Row
from finsent.inference.config import EngineConfig
from serve_app.config import ServeConfig
from serve_app.deployments.autoscaling import BusyShare, BusyTime
from serve_app.service.coalescer import Coalescer
from serve_app.service.model import check_device
from serve_app.split import remote
from serve_app.split.loads import LOADS, ClassifierLoads
from serve_app.split.messages import ComputedBatch, EngineInfo, MicroBatch, NotLoaded, pack
from serve_app.split.queues import GatewayQueues
from serve_app.split.remote import Classifiers, RemoteStreams
from serve_app.split.topology import for_gpus, resolved


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def batch(gateway: str, tokens: int, waiting: float = 0.0) -> MicroBatch:
    ids, lengths = pack([[1] * tokens])
    return MicroBatch(0, gateway, "v1", ids, lengths, waiting)


# --- messages -------------------------------------------------------------------------------------


def test_rows_arrive_as_they_were_sent() -> None:
    rows: list[Row] = [[101, 7, 102], [101, 102], [5] * 128]
    sent = MicroBatch(1, "g", "v1", *pack(rows), 0.0)
    received = pickle.loads(pickle.dumps(sent))
    assert [row.tolist() for row in received.rows] == rows
    assert received.tokens == 133


@pytest.mark.parametrize("shape", [unchanged, rounded])
def test_a_gateway_knows_the_shapes_of_the_classifiers(shape: Any) -> None:
    info = EngineInfo("openvino-int8", "cpu", 2, 16, {}, shape)
    received = pickle.loads(pickle.dumps(info))
    assert received == info
    assert received.padded_shape(3, 30) == shape(3, 30)


# --- the choice -----------------------------------------------------------------------------------


def test_the_classifier_with_the_fewest_tokens_is_chosen() -> None:
    loads = ClassifierLoads()
    loads.set_classifiers(["a", "b"])
    loads.begin(1, 100)
    loads.assign(1, "a")
    for number in (2, 3):  # two small ones are less than the large one
        loads.begin(number, 10)
        assert loads.ranked(["a", "b"], "v1") == ["b", "a"]
        loads.assign(number, "b")
    loads.end(1)
    assert loads.ranked(["a", "b"], "v1") == ["a", "b"]


def test_work_of_other_gateways_counts_until_its_report_is_old() -> None:
    clock = Clock()
    loads = ClassifierLoads(clock)
    loads.set_classifiers(["a", "b"])
    loads.report("a", 500.0)
    loads.begin(1, 100)
    loads.assign(1, "b")
    assert loads.ranked(["a", "b"], "v1") == ["b", "a"]
    assert loads.other_tokens == 500
    clock.now = 2.0
    assert loads.ranked(["a", "b"], "v1") == ["a", "b"]
    assert loads.other_tokens == 0


def test_a_moved_micro_batch_counts_once_and_an_ended_one_not_at_all() -> None:
    loads = ClassifierLoads()
    loads.set_classifiers(["a", "b"])
    loads.begin(1, 100)
    loads.assign(1, "a")
    loads.assign(1, "b")  # `a` died
    assert loads.ranked(["a", "b"], "v1") == ["a", "b"]
    loads.end(1)
    loads.assign(1, "a")  # Ray's router runs in its own thread, and comes too late
    loads.begin(2, 1)
    loads.assign(2, "b")
    assert loads.ranked(["a", "b"], "v1") == ["a", "b"]


def test_a_classifier_that_loads_the_version_comes_last_for_a_while() -> None:
    clock = Clock()
    loads = ClassifierLoads(clock)
    loads.set_classifiers(["a", "b"])
    loads.begin(1, 100)
    loads.assign(1, "b")
    loads.lacks("a", "v2")
    assert loads.ranked(["a", "b"], "v2") == ["b", "a"]
    assert loads.ranked(["a", "b"], "v1") == ["a", "b"]
    clock.now = 2.0
    assert loads.ranked(["a", "b"], "v2") == ["a", "b"]


def test_equal_classifiers_share_the_work() -> None:
    loads = ClassifierLoads()
    assert {loads.ranked(["a", "b", "c"], None)[0] for _ in range(200)} == {"a", "b", "c"}


# --- the work that waits for a classifier ---------------------------------------------------------


def test_a_classifier_counts_what_waits_at_gateways() -> None:
    clock = Clock()
    queues = GatewayQueues(clock)
    with queues.counted(batch("a", 10, waiting=90)), queues.counted(batch("b", 5, waiting=20)):
        assert queues.tokens == 125
        assert (queues.of_others("a"), queues.of_others("b")) == (25, 100)
    assert queues.tokens == 110
    clock.now = 3.0  # both have gone
    assert queues.tokens == 0


def test_new_gateways_start_when_the_others_are_busy() -> None:
    def wanted(*shares: float) -> int:
        metrics = {"busy_share": dict(enumerate(shares))}
        return BusyShare(0.7)(SimpleNamespace(aggregated_metrics=metrics))[0]

    assert [wanted(), wanted(0.1), wanted(0.8), wanted(0.9, 0.9), wanted(0.2, 0.2)] == [
        1,
        1,
        2,
        3,
        1,
    ]
    busy = BusyTime()
    sum(range(2_000_000))
    assert 0 < busy.share() <= 1.5


# --- calls ----------------------------------------------------------------------------------------


class Handle:
    """Answers like classifiers; the test's function is what they do."""

    def __init__(self, answer: Callable[[MicroBatch], Any]) -> None:
        self.batches: list[MicroBatch] = []
        self._answer = answer
        self.compute = SimpleNamespace(remote=self._compute)

    async def _compute(self, batch: MicroBatch) -> Any:
        self.batches.append(batch)
        await asyncio.sleep(0)
        return self._answer(batch)


def computed(batch: MicroBatch) -> ComputedBatch:
    logits = np.array([[row[0], len(row), 0] for row in batch.rows], np.float32)
    return ComputedBatch("a", logits, 0.01, other_tokens=0.0)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.0)
    LOADS.set_classifiers([])


def coalesced(
    answer: Callable[[MicroBatch], Any],
    test: Callable[[Coalescer], Awaitable[Any]],
    timeout: float = 20.0,
) -> tuple[Any, list[MicroBatch]]:
    """Run a test on a coalescer whose streams are classifiers with two streams each."""

    async def main() -> Any:
        info = EngineInfo("torch-bf16", "cuda", 2, 16, {}, unchanged)
        streams = RemoteStreams(Classifiers(handle, lambda: timeout), "v1", info)  # type: ignore[arg-type]
        queue = Coalescer(streams, 512, 16)
        result = await asyncio.wait_for(test(queue), 20)
        assert (queue.waiting_rows, queue.running_tokens) == (0, 0)
        return result

    handle = Handle(answer)
    return asyncio.run(main()), handle.batches


def test_rows_of_many_requests_share_calls_and_get_their_own_answers() -> None:
    async def test(queue: Coalescer) -> Sequence[Any]:
        requests = [[[number] * (1 + number % 30)] for number in range(64)]
        requests += [[[7] * 10] * 64]
        return await asyncio.gather(*(queue.run(rows) for rows in requests))

    answers, batches = coalesced(computed, test)
    assert [logits.tolist() for logits, _ in answers[:64]] == [
        [[number, 1 + number % 30, 0]] for number in range(64)
    ]
    assert len(batches) <= 20  # 128 rows in micro-batches of up to 16
    assert all(len(batch.lengths) <= 16 for batch in batches)
    waiting = [batch.waiting_tokens for batch in batches]
    assert waiting[0] < max(waiting) > waiting[-1] == 0  # the first rows found free streams


def test_a_call_to_a_dead_classifier_is_repeated() -> None:
    failures = iter([ActorDiedError(), ActorDiedError()])

    def answer(batch: MicroBatch) -> ComputedBatch:
        error = next(failures, None)
        if error is not None:
            raise error
        return computed(batch)

    (logits, timing), batches = coalesced(answer, lambda queue: queue.run([[7, 7]]))
    assert (logits.tolist(), timing.rows, len(batches)) == ([[7, 2, 0]], 1, 3)


def test_a_version_that_loads_is_waited_for() -> None:
    answers = iter([NotLoaded("a"), NotLoaded("b")])
    (logits, _), batches = coalesced(
        lambda batch: next(answers, None) or computed(batch), lambda queue: queue.run([[7]])
    )
    assert (logits.tolist(), len(batches)) == ([[7, 1, 0]], 3)


def test_a_call_is_no_child_of_the_request_that_started_it() -> None:
    """Ray cancels the child calls of a request whose client leaves."""
    request = ContextVar("request", default="none")
    seen = []

    def answer(batch: MicroBatch) -> ComputedBatch:
        seen.append(request.get())
        return computed(batch)

    async def test(queue: Coalescer) -> None:
        request.set("a request")
        await queue.run([[7]])

    coalesced(answer, test)
    assert seen == ["none"]


def test_an_error_of_the_model_is_not_repeated() -> None:
    calls = []

    def answer(batch: MicroBatch) -> ComputedBatch:
        calls.append(batch)
        raise RuntimeError("CUDA error")

    with pytest.raises(RuntimeError, match="CUDA error"):
        coalesced(answer, lambda queue: queue.run([[7]]))
    assert len(calls) == 1


def test_classifiers_that_never_load_end_with_the_longest_deadline() -> None:
    with pytest.raises(TimeoutError):
        coalesced(lambda _: NotLoaded("a"), lambda queue: queue.run([[7]]), timeout=0.05)


def test_more_classifiers_get_more_micro_batches_at_a_time() -> None:
    async def test(queue: Coalescer) -> tuple[float, float]:
        await queue.run([[7] * 10])
        before = queue.rate
        LOADS.set_classifiers(["a", "b", "c"])
        return before, queue.rate

    (before, after), _ = coalesced(computed, test)
    assert after == 3 * before == pytest.approx(3 * 2 * 1000)


# --- settings -------------------------------------------------------------------------------------


def test_auto_takes_split_where_the_cluster_has_gpus() -> None:
    auto = ServeConfig()

    def choice(config: ServeConfig, gpus: float) -> tuple[str, float | None]:
        config = resolved(config, gpus)
        return config.topology, config.num_gpus

    assert choice(auto, 0) == ("fused", 0)
    assert choice(auto, 2) == ("split", 1)
    assert choice(auto.replaced(num_gpus=0.5), 2) == ("split", 0.5)
    assert choice(auto.replaced(num_gpus=0), 2) == ("fused", 0)
    assert choice(auto.replaced(topology="fused"), 2) == ("fused", 0)
    assert choice(auto.replaced(topology="split"), 0) == ("split", 0)


def test_only_one_gpu_can_be_shared() -> None:
    for gpus in (0.25, 1, 2):
        ServeConfig(num_gpus=gpus)
    with pytest.raises(ValidationError, match=r"num_gpus=1.5: Ray shares one GPU only"):
        ServeConfig(num_gpus=1.5)


def test_replicas_with_gpus_compute_by_torch() -> None:
    engine, with_gpu = EngineConfig(precision="bf16"), ServeConfig(num_gpus=1)
    assert for_gpus(engine, with_gpu) == engine.replaced(backend="torch")
    assert for_gpus(engine, ServeConfig(num_gpus=0)) == engine
    assert for_gpus(engine.replaced(backend="onnxruntime"), with_gpu).backend == "onnxruntime"


def test_a_reserved_gpu_that_the_engine_does_not_use_is_an_error() -> None:
    engine: Any = SimpleNamespace(backend=SimpleNamespace(name="torch-bf16", device="cpu"))
    check_device(engine, 0)
    with pytest.raises(InputError, match=r"serve.num_gpus=0.5: torch-bf16 computes on the CPU"):
        check_device(engine, 0.5)
    engine.backend.device = "cuda"
    check_device(engine, 0.5)
