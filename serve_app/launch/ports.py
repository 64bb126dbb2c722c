"""Ports of a service: a block that no other service of this machine uses."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from finsent.errors import InputError

LOOPBACK = "127.0.0.1"
PORT_FIELDS = ("port", "grpc_port")  # of the section `serve`
# Below the ephemeral range, above the ports of the workers of `ray start`, and outside those that
# Ray Serve's replicas have by default.
_FREE_PORTS = range(20_000, 22_000)
_BLOCK_PORTS = 400
_BLOCK_STARTS = range(22_000, 30_000, _BLOCK_PORTS)
_HELPER_PORTS = 10  # the first ports of a block; replicas have the other ports
_REPLICA_PORTS = (_BLOCK_PORTS - _HELPER_PORTS) // 2


@dataclass(frozen=True)
class Ports:
    """Ports of a service's helpers. All of them listen on loopback only."""

    first: int

    @property
    def fallback_http(self) -> int:
        """Port of Ray's proxy, which answers over HTTP while there is no replica."""
        return self.first + 1

    @property
    def fallback_grpc(self) -> int:
        """Port of the same proxy for gRPC."""
        return self.first + 2

    @property
    def statistics(self) -> int:
        """Port of HAProxy's statistics."""
        return self.first + 3

    @property
    def metrics(self) -> int:
        """Port of HAProxy's metrics for Prometheus."""
        return self.first + 4

    @property
    def replicas_http(self) -> range:
        """Ports of the replicas' HTTP, one each."""
        start = self.first + _HELPER_PORTS
        return range(start, start + _REPLICA_PORTS)

    @property
    def replicas_grpc(self) -> range:
        """Ports of the replicas' gRPC, one each."""
        start = self.replicas_http.stop
        return range(start, start + _REPLICA_PORTS)

    def as_dict(self) -> dict[str, int | str]:
        """Return the ports by name, for a result or a log line."""
        return {
            "fallback_http": self.fallback_http,
            "fallback_grpc": self.fallback_grpc,
            "haproxy_statistics": self.statistics,
            "haproxy_metrics": self.metrics,
            "replicas_http": f"{self.replicas_http.start}-{self.replicas_http.stop - 1}",
            "replicas_grpc": f"{self.replicas_grpc.start}-{self.replicas_grpc.stop - 1}",
        }


@contextmanager
def reserved_ports(used: Collection[int | None] = ()) -> Iterator[Ports]:
    """Reserve a block of ports until the context ends.

    The block's first port is bound and never listens: the system lets one process bind the port,
    of whatever user, and frees the port when that process dies.

    Args:
        used: ports that must not be in the block.

    Raises:
        InputError: all blocks are in use.
    """
    for first in random.sample(_BLOCK_STARTS, len(_BLOCK_STARTS)):
        with socket.socket() as reservation:
            if not _is_in(first, used) and _reserve(reservation, first):
                yield Ports(first)
                return
    raise InputError(
        f"serve: no block of {_BLOCK_PORTS} ports from {_BLOCK_STARTS.start} to "
        f"{_BLOCK_STARTS.stop - 1} is free on this machine. End other services."
    )


def _is_in(first: int, ports: Collection[int | None]) -> bool:
    return any(port in range(first, first + _BLOCK_PORTS) for port in ports if port is not None)


def _reserve(reservation: socket.socket, first: int) -> bool:
    try:
        reservation.bind((LOOPBACK, first))
    except OSError:
        return False
    return all(is_free(LOOPBACK, port) for port in range(first + 1, first + _HELPER_PORTS))


def is_free(host: str, port: int) -> bool:
    """Return whether no socket is bound to the port.

    Raises:
        OSError: no process can listen on that host.
    """
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def free_port(host: str, used: Collection[int | None] = ()) -> int:
    """Return a free port outside the ephemeral range and outside the blocks of services.

    Args:
        used: ports that will be in use.

    Raises:
        OSError: no port is free, or no process can listen on that host.
    """
    for port in random.sample(_FREE_PORTS, len(_FREE_PORTS)):
        if port not in used and is_free(host, port):
            return port
    raise OSError(errno.EADDRINUSE, f"no port of {_FREE_PORTS} is free", host)


def reachable(host: str) -> str:
    """Return the address that a client on this machine uses for a host that servers listen on."""
    return LOOPBACK if host in ("0.0.0.0", "::") else host


def listening_ports() -> set[int]:
    """Return the TCP ports that this process and its child processes listen on."""
    this_process = psutil.Process()
    ports: set[int] = set()
    for process in (this_process, *this_process.children(recursive=True)):
        with suppress(psutil.Error):
            ports |= {
                connection.laddr.port
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
    return ports


def listens(host: str, port: int) -> bool:
    """Return whether the port accepts a connection."""
    with suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False
