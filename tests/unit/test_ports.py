"""Ports that no other service uses."""

from __future__ import annotations

import socket

import pytest

from serve_app.config import ServeConfig
from serve_app.launch import ports as ports_module
from serve_app.launch.checks import with_free_ports
from serve_app.launch.ports import LOOPBACK, free_port, listening_ports, listens, reserved_ports


def test_free_ports_are_those_of_no_client_and_of_no_service() -> None:
    free_ports = {free_port(LOOPBACK) for _ in range(20)}
    assert free_ports <= {*range(20_000, 22_000)}
    assert len(free_ports) > 10
    with pytest.raises(OSError, match="assign"):
        free_port("192.0.2.1")  # not one of this machine


def test_free_ports_of_a_service_are_different(monkeypatch: pytest.MonkeyPatch) -> None:
    first_port = free_port(LOOPBACK)
    monkeypatch.setattr(
        ports_module, "_FREE_PORTS", [first_port, free_port(LOOPBACK, {first_port})]
    )
    for requested in (ServeConfig(port=0, grpc_port=0), ServeConfig(port=0, grpc_port=first_port)):
        configs = [with_free_ports(requested) for _ in range(10)]
        assert all(config.port != config.grpc_port for config in configs)


def test_services_share_no_port() -> None:
    with reserved_ports() as first, reserved_ports() as second:
        blocks = [
            {
                p.fallback_http,
                p.fallback_grpc,
                p.statistics,
                p.metrics,
                *p.replicas_http,
                *p.replicas_grpc,
            }
            for p in (first, second)
        ]
        assert not blocks[0] & blocks[1]
        assert all(len(block) == 394 for block in blocks), "four helpers, 195 replicas twice"
        with socket.socket() as probe, pytest.raises(OSError, match="in use"):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, first.first))
    with socket.socket() as later:
        later.bind((LOOPBACK, first.first))


def test_block_holds_no_port_of_the_service_itself() -> None:
    # All but one of the blocks hold a port that is used. Another service may have any fixed block.
    with reserved_ports() as ports:
        free = ports.first
    used = {*range(22_000, 30_000, 400)} - {free}
    for _ in range(5):
        with reserved_ports({port + 7 for port in used} | {None}) as ports:
            assert ports.first == free


def test_errors_inside_are_not_taken_for_ports_in_use() -> None:
    with pytest.raises(OSError, match="disk"), reserved_ports():
        raise OSError("disk")


def test_listening_ports_include_own_sockets() -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        port = server.getsockname()[1]
        assert port not in listening_ports()
        assert not listens(LOOPBACK, port)
        server.listen()
        assert port in listening_ports()
        assert listens(LOOPBACK, port)
