"""Ray Serve 2.60: find a running Serve, and deploy without waiting. Both APIs are private."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve import context


@dataclass(frozen=True)
class ServeEndpoints:
    """Addresses of the connected cluster's Serve."""

    host: str
    port: int
    grpc_port: int | None  # None: Serve does not answer this service's gRPC


def find_endpoints(servicer: str) -> ServeEndpoints | None:
    """Return where the connected cluster's Serve listens; None: the cluster runs no Serve.

    `serve.status` has no addresses, and the public `serve.start` starts a Serve.

    Args:
        servicer: import path of the function that adds this service's gRPC to a server.
    """
    client = context._get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    http = client.http_config
    grpc = ray.get(client._controller.get_grpc_config.remote())
    has_grpc = grpc.port > 0 and servicer in grpc.grpc_servicer_functions
    return ServeEndpoints(str(http.host), int(http.port), int(grpc.port) if has_grpc else None)


def deploy(application: Any, name: str) -> None:
    """Deploy an application at the root path, and return before it runs.

    The public `serve.run` waits until the application runs: for ever where no CPU is free.

    Raises:
        TimeoutError: a proxy still starts; the application is deployed then.
    """
    serve.api._run(application, name=name, route_prefix="/", _blocking=False)
