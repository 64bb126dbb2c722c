"""Ports that no other service uses."""

from __future__ import annotations

import socket

import pytest

from ray_jobs import _ports
from ray_jobs._ports import LOOPBACK, free_port, listens, own_listeners, own_ports
from ray_jobs.serve import with_free_ports
from serve_app.config import ServeConfig


def test_free_ports_are_those_of_no_client_and_of_no_service() -> None:
    found = {free_port(LOOPBACK) for _ in range(20)}
    assert found <= {*range(20_000, 22_000)}
    assert len(found) > 10
    with pytest.raises(OSError, match="assign"):
        free_port("192.0.2.1")  # not one of this machine


def test_free_ports_of_a_service_are_different(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port(LOOPBACK)
    monkeypatch.setattr(_ports, "_FREE", [first, free_port(LOOPBACK, {first})])
    for asked in (ServeConfig(port=0, grpc_port=0), ServeConfig(port=0, grpc_port=first)):
        found = [with_free_ports(asked) for _ in range(10)]
        assert all(config.port != config.grpc_port for config in found)


def test_services_share_no_port() -> None:
    with own_ports() as one, own_ports() as other:
        blocks = [
            {
                p.fallback_http,
                p.fallback_grpc,
                p.statistics,
                p.metrics,
                *p.replicas_http,
                *p.replicas_grpc,
            }
            for p in (one, other)
        ]
        assert not blocks[0] & blocks[1]
        assert all(len(block) == 394 for block in blocks), "four helpers, 195 replicas twice"
        with socket.socket() as second, pytest.raises(OSError, match="in use"):
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            second.bind((LOOPBACK, one.first))
    with socket.socket() as later:
        later.bind((LOOPBACK, one.first))


def test_block_holds_no_port_of_the_service_itself() -> None:
    # All but one of the blocks hold a port that is used.
    used = {*range(22_000, 30_000, 400)} - {24_400}
    for _ in range(5):
        with own_ports({port + 7 for port in used} | {None}) as ports:
            assert ports.first == 24_400


def test_errors_inside_are_not_taken_for_ports_in_use() -> None:
    with pytest.raises(OSError, match="disk"), own_ports():
        raise OSError("disk")


def test_listeners_are_found() -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        port = server.getsockname()[1]
        assert port not in own_listeners()
        assert not listens(LOOPBACK, port)
        server.listen()
        assert port in own_listeners()
        assert listens(LOOPBACK, port)
