"""What `finsent.adapters.ray_serve` relies on, and where gRPC servers of Ray's workers listen."""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import logging

import grpc
import psutil
import pytest
from grpc.aio._server import Server
from ray.serve._private import logging_utils
from ray.serve._private.common import DeploymentStatus
from ray.serve._private.constants import SERVE_LOGGER_NAME
from ray.serve._private.haproxy import HAProxyApi

from finsent.adapters import ray_serve


@pytest.mark.parametrize(
    ("host", "is_local", "address", "expected"),
    [
        ("127.0.0.1", True, "[::]:0", "127.0.0.1:0"),
        ("127.0.0.1", True, "[::]:9000", "127.0.0.1:9000"),
        ("10.1.2.3", True, "[::]:9000", "10.1.2.3:9000"),
        ("10.1.2.3", True, "[::]:25005", "127.0.0.1:25005"),
        ("0.0.0.0", True, "[::]:9000", "[::]:9000"),
        ("0.0.0.0", True, "[::]:25005", "127.0.0.1:25005"),
        ("::1", True, "[::]:9000", "[::1]:9000"),
        # Processes of other machines call each other.
        ("127.0.0.1", False, "[::]:0", "[::]:0"),
        ("127.0.0.1", False, "[::]:9000", "127.0.0.1:9000"),
        ("10.1.2.3", True, "192.0.2.1:9000", "192.0.2.1:9000"),
    ],
)
def test_only_the_port_for_clients_listens_on_the_host(
    host: str, is_local: bool, address: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ray_serve.grpc_environment(host, 9000, is_local).items():
        monkeypatch.setenv(name, value)
    assert ray_serve.grpc_address(address) == expected


def test_without_grpc_for_clients_all_are_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ray_serve.grpc_environment("0.0.0.0", None, True).items():
        monkeypatch.setenv(name, value)
    assert ray_serve.grpc_address("[::]:0") == "127.0.0.1:0"


def test_servers_of_a_process_listen_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("add_insecure_port", "add_secure_port"):
        monkeypatch.setattr(Server, name, getattr(Server, name))  # puts Ray's own back at the end
    for name, value in ray_serve.grpc_environment("0.0.0.0", None, True).items():
        monkeypatch.setenv(name, value)
    ray_serve.restrict_grpc_servers()

    async def hosts() -> set[str]:
        server = grpc.aio.server()
        port = server.add_insecure_port("[::]:0")
        await server.start()
        result = {
            item.laddr.ip
            for item in psutil.Process().net_connections("tcp")
            if item.laddr.port == port
        }
        await server.stop(None)
        return result

    result = {ipaddress.ip_address(host.removeprefix("::ffff:")) for host in asyncio.run(hosts())}
    assert result
    assert all(host.is_loopback for host in result)


# --- what an upgrade of Ray or gRPC may take away -------------------------------------------------

UPGRADED = "changed by an upgrade; adapt finsent.adapters.ray_serve"


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("add_insecure_port", ["address"]), ("add_secure_port", ["address", "server_credentials"])],
)
def test_grpc_servers_get_their_address_as_before(method: str, arguments: list[str]) -> None:
    parameters = [*inspect.signature(getattr(Server, method)).parameters][1:]
    assert parameters == arguments, f"grpc.aio._server.Server.{method}: {UPGRADED}"


def test_haproxy_is_started_as_before() -> None:
    start = getattr(HAProxyApi, "_start_and_wait_for_haproxy", None)
    assert inspect.iscoroutinefunction(start), f"_start_and_wait_for_haproxy: {UPGRADED}"
    source = inspect.getsource(HAProxyApi)
    assert "self._proc = await self._start_and_wait_for_haproxy(" in source, f"_proc: {UPGRADED}"
    assert inspect.iscoroutinefunction(HAProxyApi.start), f"HAProxyApi.start: {UPGRADED}"


def test_serve_has_a_directory_for_logs() -> None:
    assert callable(logging_utils.get_serve_logs_dir), f"get_serve_logs_dir: {UPGRADED}"
    assert SERVE_LOGGER_NAME == ray_serve.LOGGER, f"logger: {UPGRADED}"


def test_a_deployment_that_starts_or_changes_is_updating() -> None:
    assert "UPDATING" in [status.value for status in DeploymentStatus], UPGRADED


def test_logs_go_where_serve_logs() -> None:
    own, serve = logging.getLogger("finsent.test_logs"), logging.getLogger(ray_serve.LOGGER)
    handler = logging.NullHandler()
    serve.addHandler(handler)
    try:
        ray_serve.log_to_serve(own.name)
        assert handler in own.handlers
        assert not own.propagate
    finally:
        serve.removeHandler(handler)
