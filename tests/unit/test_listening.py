"""Where gRPC servers of Ray's workers listen."""

from __future__ import annotations

import asyncio
import ipaddress

import grpc
import psutil
import pytest
from grpc.aio._server import Server

from serve_app import listening


@pytest.mark.parametrize(
    ("host", "is_local", "asked", "expected"),
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
def test_only_the_clients_port_is_on_the_host(
    host: str, is_local: bool, asked: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in listening.environment(host, 9000, is_local).items():
        monkeypatch.setenv(name, value)
    assert listening.address(asked) == expected


def test_without_grpc_for_clients_all_are_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in listening.environment("0.0.0.0", None, True).items():
        monkeypatch.setenv(name, value)
    assert listening.address("[::]:0") == "127.0.0.1:0"


def test_servers_of_a_process_listen_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("add_insecure_port", "add_secure_port"):
        monkeypatch.setattr(Server, name, getattr(Server, name))  # puts Ray's own back at the end
    for name, value in listening.environment("0.0.0.0", None, True).items():
        monkeypatch.setenv(name, value)
    listening.restrict()

    async def hosts() -> set[str]:
        server = grpc.aio.server()
        port = server.add_insecure_port("[::]:0")
        await server.start()
        found = {
            one.laddr.ip
            for one in psutil.Process().net_connections("tcp")
            if one.laddr.port == port
        }
        await server.stop(None)
        return found

    found = {ipaddress.ip_address(host.removeprefix("::ffff:")) for host in asyncio.run(hosts())}
    assert found
    assert all(host.is_loopback for host in found)
