"""The topology `split` with HAProxy and gRPC between replicas, while classifiers are killed.

tests/integration/test_serve_split.py kills one classifier on Ray's default transport.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.commands import wait_until
from tests.served import Served, serving
from tests.unit.models import TEXTS

KILLS = 3


@pytest.fixture(scope="module")
def split(served_root: Path) -> Iterator[Served]:
    with serving(
        served_root,
        "port=0",
        "serve.grpc_port=0",
        "serve.topology=split",
        "serve.min_replicas=2",
        "serve.max_replicas=2",
        "serve.gateways.min_replicas=2",
        "serve.gateways.max_replicas=2",
        "serve.num_cpus=0.5",
        "serve.gateways.num_cpus=0.5",
        "serve.limits.timeout_ms=60000",
        "serve.limits.queue_seconds=60",
    ) as service:
        yield service


def classifiers(served: Served) -> dict[int, psutil.Process]:
    running = {}
    for process in psutil.Process(served.process.pid).children(recursive=True):
        try:
            if "ServeReplica:finsent:Classifier" in " ".join(process.cmdline()):
                running[process.pid] = process
        except psutil.NoSuchProcess:
            continue
    return running


def test_killed_classifiers_fail_no_request(split: Served) -> None:
    end = threading.Event()
    answers: list[tuple[int, Any]] = []

    def load() -> None:
        with httpx.Client(timeout=90) as client:
            while not end.is_set():
                response = client.post(f"{split.address}/predict", json={"texts": TEXTS * 5})
                labels = [item.get("label") for item in response.json().get("predictions", [])]
                answers.append((response.status_code, labels))

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(KILLS):
            wait_until(lambda: len(classifiers(split)) == 2, 150, "two classifiers")
            before = len(answers)
            wait_until(lambda: len(answers) >= before + 12, 150, "answers")  # noqa: B023 # now
            victim = next(iter(classifiers(split).values()))
            victim.kill()
            wait_until(lambda: not victim.is_running(), 30, "its end")  # noqa: B023 # now
            before = len(answers)
            wait_until(lambda: len(answers) >= before + 12, 150, "answers")  # noqa: B023 # now
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in answers} == {200}
    assert len({str(labels) for _, labels in answers}) == 1
    assert set(answers[0][1]) <= {"negative", "neutral", "positive"}
