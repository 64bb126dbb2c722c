"""Settings of a service on a cluster whose Serve listens already: its ports stay."""

from __future__ import annotations

from finsent.adapters.ray_serve_launch import ServeEndpoints
from finsent.errors import InputError
from serve_app.config import ServeConfig

_SHUTDOWN = "end Serve on the cluster first (`serve shutdown`)"


def with_endpoints(config: ServeConfig, endpoints: ServeEndpoints) -> ServeConfig:
    """Return settings with the host and the ports of a running Serve.

    Raises:
        InputError: a requested host, other than the default, or a requested port, other than 0, is
            not Serve's.
    """
    is_default_host = config.host == ServeConfig.model_fields["host"].default
    if not is_default_host and config.host != endpoints.host:
        raise _conflict("host", config.host, f"with host {endpoints.host!r}", endpoints.host)
    if config.port not in (0, endpoints.port):
        raise _conflict("port", config.port, f"with port {endpoints.port}", endpoints.port)
    if config.grpc_port is not None and endpoints.grpc_port is None:
        problem = "without this service's gRPC"
        raise _conflict("grpc_port", config.grpc_port, problem, "null")
    if config.grpc_port not in (None, 0, endpoints.grpc_port):
        problem = f"with gRPC on port {endpoints.grpc_port}"
        raise _conflict("grpc_port", config.grpc_port, problem, endpoints.grpc_port)
    return config.replaced(host=endpoints.host, port=endpoints.port, grpc_port=endpoints.grpc_port)


def _conflict(key: str, value: object, problem: str, remedy: object) -> InputError:
    return InputError(
        f"serve.{key}={value!r}: Serve already runs on this cluster, {problem}. "
        f"Set serve.{key}={remedy}, or {_SHUTDOWN}."
    )
