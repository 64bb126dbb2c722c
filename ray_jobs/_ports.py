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
# Below the ports that the system gives to clients, above those of the workers of `ray start`, and
# outside those that Ray Serve's replicas have by default.
_FREE = range(20_000, 22_000)
_BLOCK = 400
_BLOCKS = range(22_000, 30_000, _BLOCK)
_HELPERS = 10  # the first ports of a block; replicas have the others
_REPLICAS = (_BLOCK - _HELPERS) // 2


@dataclass(frozen=True)
class Ports:
    """Ports of a service's helpers. All of them listen on loopback only."""

    first: int

    @property
    def fallback_http(self) -> int:
        """Ray's proxy, which answers over HTTP while there is no replica."""
        return self.first + 1

    @property
    def fallback_grpc(self) -> int:
        """The same proxy's gRPC."""
        return self.first + 2

    @property
    def statistics(self) -> int:
        """HAProxy's statistics."""
        return self.first + 3

    @property
    def metrics(self) -> int:
        """HAProxy's metrics for Prometheus."""
        return self.first + 4

    @property
    def replicas_http(self) -> range:
        """Replicas' HTTP, one port each."""
        start = self.first + _HELPERS
        return range(start, start + _REPLICAS)

    @property
    def replicas_grpc(self) -> range:
        """Replicas' gRPC, one port each."""
        start = self.replicas_http.stop
        return range(start, start + _REPLICAS)

    def as_dict(self) -> dict[str, int | str]:
        """The ports as a result or a log line has them."""
        return {
            "fallback_http": self.fallback_http,
            "fallback_grpc": self.fallback_grpc,
            "haproxy_statistics": self.statistics,
            "haproxy_metrics": self.metrics,
            "replicas_http": f"{self.replicas_http.start}-{self.replicas_http.stop - 1}",
            "replicas_grpc": f"{self.replicas_grpc.start}-{self.replicas_grpc.stop - 1}",
        }


@contextmanager
def own_ports(used: Collection[int | None] = ()) -> Iterator[Ports]:
    """Reserve a block of ports until the context ends.

    Args:
        used: ports that must not be in the block.

    The block's first port is bound and never listens: the system lets one process bind it, of
    whatever user, and frees it when that process dies.

    Raises:
        InputError: all blocks are in use.
    """
    for first in random.sample(_BLOCKS, len(_BLOCKS)):
        with socket.socket() as reservation:
            if not _is_in(first, used) and _reserve(reservation, first):
                yield Ports(first)
                return
    raise InputError(
        f"serve: no block of {_BLOCK} ports from {_BLOCKS.start} to {_BLOCKS.stop - 1} is free on "
        "this machine. End other services."
    )


def _is_in(first: int, ports: Collection[int | None]) -> bool:
    return any(port in range(first, first + _BLOCK) for port in ports if port is not None)


def _reserve(reservation: socket.socket, first: int) -> bool:
    try:
        reservation.bind((LOOPBACK, first))
    except OSError:
        return False
    return all(is_free(LOOPBACK, port) for port in range(first + 1, first + _HELPERS))


def is_free(host: str, port: int) -> bool:
    """Whether no socket is bound to the port.

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
        OSError: there is none, or no process can listen on that host.
    """
    for port in random.sample(_FREE, len(_FREE)):
        if port not in used and is_free(host, port):
            return port
    raise OSError(errno.EADDRINUSE, f"no port of {_FREE} is free", host)


def own_listeners() -> set[int]:
    """Return the TCP ports that this process and those below it listen on."""
    me = psutil.Process()
    ports: set[int] = set()
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            ports |= {
                connection.laddr.port
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
    return ports


def listens(host: str, port: int) -> bool:
    """Whether a connection is accepted."""
    with suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False
