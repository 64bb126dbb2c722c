"""The topology `split`: gateways send micro-batches to classifiers, with the answers of `fused`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.registry.registry import Registry
from serve_app.launch.ports import free_port
from tests.commands import wait_until
from tests.unit.models import TEXTS

SETTINGS = {
    "engine.precision": "fp32",
    "engine.threads": 1,
    "serve.topology": "split",
    "serve.watch_seconds": 0.2,
    "serve.num_cpus": 0.1,
    "serve.gateways.num_cpus": 0.1,
    "serve.record": True,
    "serve.record_seconds": 0.5,
}


class Split:
    """A service with gateways and classifiers on the session's Ray."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port = root, port
        self.registry = Registry(root / "registry")

    def deploy(self, **changes: Any) -> None:
        """Deploy with changed settings, and wait until the service runs."""
        from ray import serve

        from serve_app.graph import app

        names = {name.replace("__", "."): value for name, value in changes.items()}
        serve.run(app({"storage.root": str(self.root), **SETTINGS, **names}), name="finsent")

    def post(self, texts: list[Any], **options: Any) -> httpx.Response:
        address = f"http://127.0.0.1:{self.port}/predict"
        return httpx.post(address, json={"texts": texts}, timeout=60, **options)

    def info(self) -> Any:
        return httpx.get(f"http://127.0.0.1:{self.port}/info", timeout=60).json()


@pytest.fixture(scope="module")
def split(served_root: Path) -> Iterator[Split]:
    from ray import serve

    port = free_port("127.0.0.1")
    serve.start(http_options=serve.HTTPOptions(host="127.0.0.1", port=port))
    try:
        service = Split(served_root, port)
        service.deploy()
        yield service
    finally:
        serve.shutdown()


def replicas(deployment: str) -> dict[str, int]:
    """Process ids of the running replicas of a deployment, by the replica's name."""
    from ray.serve.context import _get_global_client

    client: Any = _get_global_client()
    details = client.get_serve_details()["applications"]["finsent"]["deployments"][deployment]
    return {
        replica["replica_id"]: replica["pid"]
        for replica in details["replicas"]
        if replica["state"] == "RUNNING"
    }


def probabilities(response: httpx.Response) -> list[dict[str, float]]:
    assert response.status_code == 200, response.text
    return [item["probabilities"] for item in response.json()["predictions"]]


def test_answers_and_limits_are_those_of_an_engine_in_the_gateway(split: Split) -> None:
    version = split.registry.get("champion")
    engine = Engine(version.path, EngineConfig(precision="fp32", threads=1))
    [want] = engine.classify(TEXTS[:1])
    [answer] = probabilities(split.post(TEXTS[:1]))
    assert answer == want.probabilities  # one row is the same micro-batch everywhere: bit for bit

    body = split.post([*TEXTS, "", 5]).json()
    labels = [prediction.label for prediction in engine.classify(TEXTS)]
    assert [item["label"] for item in body["predictions"][:-2]] == labels
    assert [item["code"] for item in body["predictions"][-2:]] == ["invalid_text"] * 2

    info = split.info()
    assert (info["backend"], info["streams"]) == ("onnxruntime-fp32", 1)
    assert split.post(["word"] * 1025).status_code == 422
    assert split.post(["word " * 500_000]).status_code == 413
    late = split.post([TEXTS[4]] * 1000, headers={"X-Request-Timeout-Ms": "1"})
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert probabilities(split.post(TEXTS[:1])) == [want.probabilities]
    wait_until(lambda: any((split.root / "predictions").rglob("*.parquet")), 30, "the log")


def test_gateways_and_classifiers_follow_the_alias_together(split: Split) -> None:
    first, second = (split.registry.get(name).version for name in ("champion", "challenger"))
    try:
        split.registry.promote(second, "champion")
        versions = set()

        def is_second() -> bool:
            response = split.post(TEXTS[:2])
            assert response.status_code == 200, response.text
            versions.add(response.json()["model_version"])
            return bool(response.json()["model_version"] == second)

        wait_until(is_second, 60, "the second version")
        assert versions <= {first, second}
        engine = Engine(split.registry.get(second).path, EngineConfig(precision="fp32", threads=1))
        assert probabilities(split.post(TEXTS[:1])) == [engine.classify(TEXTS[:1])[0].probabilities]
    finally:
        split.registry.promote(first, "champion")
        wait_until(lambda: split.info()["model_version"] == first, 60, "the first version")


def test_a_client_that_leaves_cancels_no_rows_of_others(split: Split) -> None:
    async def main() -> list[httpx.Response]:
        address = f"http://127.0.0.1:{split.port}/predict"
        async with httpx.AsyncClient(timeout=60) as client:

            def ask() -> asyncio.Task[httpx.Response]:
                return asyncio.create_task(client.post(address, json={"texts": TEXTS * 20}))

            first_answer = ask()  # its request sends the first micro-batches
            await asyncio.sleep(0.02)
            others = [ask() for _ in range(6)]
            for leaving in (first_answer, *others[::2]):
                await asyncio.sleep(0.02)
                leaving.cancel()
            return await asyncio.gather(*others[1::2])

    for _ in range(3):
        assert [answer.status_code for answer in asyncio.run(main())] == [200] * 3


@pytest.mark.cost(15, "starts a gateway and three classifiers")
def test_a_killed_classifier_fails_no_request(split: Split) -> None:
    split.deploy(serve__min_replicas=2, serve__max_replicas=2)
    victims = replicas("Classifier")
    assert len(victims) == 2

    async def main() -> list[httpx.Response]:
        address = f"http://127.0.0.1:{split.port}/predict"
        async with httpx.AsyncClient(timeout=60) as client:
            requests = [client.post(address, json={"texts": TEXTS * 40}) for _ in range(8)]
            tasks = [asyncio.create_task(request) for request in requests]
            await asyncio.sleep(0.1)
            os.kill(next(iter(victims.values())), signal.SIGKILL)
            return await asyncio.gather(*tasks)

    answers = asyncio.run(main())
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({str(probabilities(answer)[:3]) for answer in answers}) == 1

    def is_replaced() -> bool:
        return len(replicas("Classifier").keys() - victims.keys()) == 1

    wait_until(is_replaced, 90, "another classifier")
    assert split.post(TEXTS).status_code == 200
