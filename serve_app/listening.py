"""Where Ray Serve's gRPC servers listen.

Ray 2.60 has no setting for it: each of them takes all addresses of the machine, that of replicas
for each other's calls included, which executes what it is sent.
"""

from __future__ import annotations

import os
from typing import Any

_PUBLIC_PORT = "FINSENT_GRPC_PORT"  # the one for clients
_PUBLIC_HOST = "FINSENT_GRPC_HOST"
_OTHER_HOST = "FINSENT_GRPC_OTHER_HOST"  # of all other ports; empty: as Ray has it
_EVERYWHERE = "[::]:"


def environment(host: str, port: int | None, is_local: bool) -> dict[str, str]:
    """Return the environment of workers that open gRPC servers where they should.

    Args:
        port: of gRPC for clients, which the host is for.
        is_local: all processes are on this machine, so that other ports need loopback only.
    """
    return {
        _PUBLIC_HOST: host,
        _PUBLIC_PORT: "" if port is None else str(port),
        _OTHER_HOST: "127.0.0.1" if is_local else "",
    }


def address(asked: str) -> str:
    """Return where a gRPC server of this process should listen in place of all addresses."""
    if not asked.startswith(_EVERYWHERE):
        return asked
    port = asked.removeprefix(_EVERYWHERE)
    is_public = port != "0" and port == os.environ.get(_PUBLIC_PORT)
    host = os.environ.get(_PUBLIC_HOST if is_public else _OTHER_HOST, "")
    if host in ("", "0.0.0.0", "::"):
        return asked
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def restrict() -> None:
    """Let gRPC servers of this process listen where they should."""
    from grpc.aio._server import Server

    insecure, secure = Server.add_insecure_port, Server.add_secure_port

    def add_insecure_port(server: Server, asked: str) -> int:
        return int(insecure(server, address(asked)))

    def add_secure_port(server: Server, asked: str, credentials: Any) -> int:
        return int(secure(server, address(asked), credentials))

    Server.add_insecure_port = add_insecure_port
    Server.add_secure_port = add_secure_port
