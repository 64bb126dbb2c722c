"""Environment variables that Ray Serve's processes read when they import it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Seconds between Ray's health checks of HAProxy or of its own proxy; after three failures Ray
# starts the proxy again. Default 10.
HEALTH_CHECK_SECONDS = "0.5"

# Read whatever `serve.fast` is.
_COMMON = {
    # Ray kills a proxy that is not ready by then. The default of 5 is too short on a busy machine.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    # Two services that start at once on the same port must not share it.
    "SERVE_SOCKET_REUSE_PORT_ENABLED": "0",
}
# HAProxy sends requests straight to the replicas, which then answer HTTP on their own event loop.
FAST = {
    **_COMMON,
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # The first variable makes this 1,000 lines, which are written late, and never by a replica
    # that dies.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    # HAProxy retries on another replica the requests that a dying replica was working on: all
    # requests of this service are idempotent. HAProxy can retry only a request that it has
    # buffered completely. Ray has no settings for this, so the lines after the codes make HAProxy
    # buffer each request that fits into its buffer. A request that does not arrive within 10 s is
    # refused (408); Ray would hold it for an hour. HAProxy also sends the time at which it accepted
    # a request, where the request's deadline begins.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response response-timeout 500\n"
    "    option http-buffer-request\n"
    "    timeout http-request 10s\n"
    "    unique-id-format t=%[date(0,ms)]\n"
    "    unique-id-header X-Request-Start",
    "RAY_SERVE_HAPROXY_RETRIES": "5",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "131072",
}
# Without `serve.fast` Ray checks its own proxy as often as HAProxy.
PLAIN = {**_COMMON, "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": HEALTH_CHECK_SECONDS}


def unless_set(values: Mapping[str, str]) -> dict[str, str]:
    """Return variables with the values that the user has set already, if any."""
    return {name: os.environ.get(name, value) for name, value in values.items()}


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables until the context ends."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
