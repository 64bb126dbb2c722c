"""Two services on one machine while replicas, HAProxy and whole services are killed; a late proxy.

tests/e2e/test_serve.py looks at the ports of one service, tests/integration/test_haproxy.py at
HAProxy's files and its end, tests/unit/test_serve_job.py at what the job does about a late proxy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from finsent.registry.registry import Registry
from serve_app.proto import sentiment_pb2 as pb
from serve_app.proto.sentiment_pb2_grpc import SentimentStub
from tests.commands import descendants, invoke_job, wait_until
from tests.served import Served, gateways, publish, serving

OUTAGE_SECONDS = 9.0  # at most, after HAProxy's death; Ray looks every 10 seconds only


@dataclass
class Probe:
    """Asks an address all the time and keeps what is answered."""

    address: str
    key: str | None
    seen: set[tuple[int | str, str]] = field(default_factory=set)  # status, model version
    answers: list[float] = field(default_factory=list)  # times of predictions

    def ask(self) -> None:
        headers = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        try:
            response = httpx.post(
                f"{self.address}/predict", json={"text": "Profit rose."}, headers=headers, timeout=5
            )
        except httpx.HTTPError:
            return
        version = response.json()["model_version"] if response.status_code == 200 else ""
        self.seen.add((response.status_code, version))
        if response.status_code == 200:
            self.answers.append(time.monotonic())

    @property
    def statuses(self) -> set[int | str]:
        """All statuses that were answered."""
        return {status for status, _ in self.seen}

    @property
    def versions(self) -> set[str]:
        """The versions of the models that answered."""
        return {version for _, version in self.seen if version}

    @property
    def longest_gap(self) -> float:
        """Seconds between two answers."""
        return max(b - a for a, b in zip(self.answers, self.answers[1:], strict=False))


class GrpcProbe(Probe):
    """The same by gRPC, each time by a connection of its own."""

    def ask(self) -> None:
        metadata = [] if self.key is None else [("authorization", f"Bearer {self.key}")]
        with grpc.insecure_channel(self.address) as channel:
            try:
                answer = SentimentStub(channel).Predict(
                    pb.PredictRequest(text="Profit rose."), metadata=metadata, timeout=5
                )
            except grpc.RpcError as error:
                self.seen.add((error.code().name, ""))
                return
        self.seen.add(("OK", answer.prediction.model_version))
        self.answers.append(time.monotonic())


@contextmanager
def probing(*probes: Probe) -> Iterator[None]:
    end = threading.Event()

    def run(probe: Probe) -> None:
        while not end.wait(0.02):
            probe.ask()

    threads = [threading.Thread(target=run, args=(probe,)) for probe in probes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def roots(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two registries with different models."""
    folders = []
    for name, seed in (("open", 5), ("closed", 6)):
        root = tmp_path_factory.mktemp(name)
        Registry(root / "registry").promote(publish(tiny, root, seed), "champion")
        folders.append(root)
    return folders[0], folders[1]


def kill_replica(service: Served) -> None:
    [replica] = gateways(service)
    replica.kill()
    wait_until(
        lambda: bool(gateways(service)) and replica not in gateways(service), 120, "a new replica"
    )


def check_haproxy_death(service: Served, probe: Probe) -> None:
    def haproxies() -> set[psutil.Process]:
        return {
            process
            for process in descendants(psutil.Process(service.process.pid))
            if process.name() == "haproxy"
        }

    probe.answers.clear()
    before = haproxies()
    with probing(probe):
        wait_until(lambda: len(probe.answers) > 5, 120, "answers")
        for process in before:
            with suppress(psutil.NoSuchProcess):  # it had drained
                process.kill()
        wait_until(lambda: bool(haproxies() - before), 120, "another HAProxy")
        count = len(probe.answers)
        wait_until(lambda: len(probe.answers) > count + 5, 120, "answers again")
    assert probe.longest_gap < OUTAGE_SECONDS


def test_no_service_answers_for_another(roots: tuple[Path, Path], tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = invoke_job("serve", f"api_keys={keys}", "new-key", "desk", "predict").result["key"]
    versions = [Registry(root / "registry").aliases()["champion"] for root in roots]
    with (
        serving(roots[0], "port=0", "serve.grpc_port=0") as opened,
        serving(roots[1], "port=0", "serve.grpc_port=0", f"serve.api_keys={keys}") as closed,
    ):
        assert not set(opened.ports.values()) & set(closed.ports.values())
        keyless, stranger, client = (
            Probe(opened.address, None),
            Probe(closed.address, None),
            Probe(closed.address, key),
        )
        grpc_keyless, grpc_stranger, grpc_client = (
            GrpcProbe(opened.grpc_address, None),
            GrpcProbe(closed.grpc_address, None),
            GrpcProbe(closed.grpc_address, key),
        )
        with probing(keyless, stranger, client, grpc_keyless, grpc_stranger, grpc_client):
            kill_replica(closed)
            kill_replica(opened)
            for probe in (keyless, client, grpc_keyless, grpc_client):
                count = len(probe.answers)
                wait_until(lambda p=probe, c=count: len(p.answers) > c, 120, "answers")  # type: ignore[misc]
        check_haproxy_death(opened, keyless)
        with probing(stranger, client):
            closed.process.kill()
            closed.process.wait()
            refused_at = time.monotonic()
            wait_until(lambda: is_refused(closed.address), 20, "HAProxy's end")
            # On the same port again, from the first moment on.
            port = closed.address.rpartition(":")[2]
            with serving(roots[1], f"port={port}", "serve.grpc_port=0", f"serve.api_keys={keys}"):
                wait_until(lambda: client.answers[-1] > refused_at, 120, "answers again")
    assert keyless.versions == grpc_keyless.versions == {versions[0]}
    assert client.versions == grpc_client.versions == {versions[1]}
    assert keyless.statuses | client.statuses <= {200, 500, 503}
    assert stranger.statuses <= {401, 500, 503}
    assert "UNAUTHENTICATED" not in grpc_keyless.statuses | grpc_client.statuses
    assert "UNAUTHENTICATED" in grpc_stranger.statuses
    assert "OK" not in grpc_stranger.statuses


def test_a_proxy_that_starts_late_is_waited_for(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray kills the first ones. It gives each one more time than the one before."""
    monkeypatch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "0.5")
    with serving(roots[0], "port=0", "serve.grpc_port=0") as service:
        assert service.ask()["label"]
        log = service.log.read_text()
    assert "waiting for another proxy" in log
    assert "Traceback" not in log


def is_refused(address: str) -> bool:
    try:
        httpx.get(f"{address}/livez", timeout=1)
    except httpx.ConnectError:
        return True
    except httpx.HTTPError:
        return False
    return False
