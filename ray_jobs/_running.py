"""A Serve that the cluster runs already: a new service gets its host and ports."""

from __future__ import annotations

from dataclasses import dataclass

from finsent.adapters.ray_serve_client import running_endpoints
from finsent.errors import InputError
from serve_app.config import ServeConfig

END_SERVE = "end Serve on the cluster first (`serve shutdown`)"


@dataclass(frozen=True)
class RunningServe:
    """Where a running Serve listens."""

    host: str
    port: int
    grpc_port: int | None  # None: it does not answer this service's gRPC


def running_serve(servicer: str) -> RunningServe | None:
    """Return where the connected cluster's Serve listens; None: no Serve runs.

    Args:
        servicer: import path of the function that adds this service's gRPC to a server.
    """
    endpoints = running_endpoints()
    if endpoints is None:
        return None
    has_grpc = endpoints.grpc_port > 0 and servicer in endpoints.grpc_services
    return RunningServe(endpoints.host, endpoints.port, endpoints.grpc_port if has_grpc else None)


def adopt(requested: ServeConfig, running: RunningServe) -> ServeConfig:
    """Return the settings with the host and ports of a running Serve.

    Raises:
        InputError: a requested host, other than the default, or a requested port, other than 0, is
            not Serve's.
    """
    is_default_host = requested.host == ServeConfig.model_fields["host"].default
    if not is_default_host and requested.host != running.host:
        raise _conflict("host", requested.host, f"with host {running.host!r}", running.host)
    if requested.port not in (0, running.port):
        raise _conflict("port", requested.port, f"with port {running.port}", running.port)
    if requested.grpc_port is not None and running.grpc_port is None:
        problem = "without this service's gRPC"
        raise _conflict("grpc_port", requested.grpc_port, problem, "null")
    if requested.grpc_port not in (None, 0, running.grpc_port):
        problem = f"with gRPC on port {running.grpc_port}"
        raise _conflict("grpc_port", requested.grpc_port, problem, running.grpc_port)
    return requested.replaced(host=running.host, port=running.port, grpc_port=running.grpc_port)


def _conflict(key: str, value: object, problem: str, remedy: object) -> InputError:
    return InputError(
        f"serve.{key}={value!r}: Serve already runs on this cluster, {problem}. "
        f"Set serve.{key}={remedy}, or {END_SERVE}."
    )
