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
    if config.host not in (ServeConfig.model_fields["host"].default, endpoints.host):
        raise InputError(
            f"serve.host={config.host!r}: Serve already runs on this cluster, with host "
            f"{endpoints.host!r}. Set serve.host={endpoints.host}, or {_SHUTDOWN}."
        )
    if config.port not in (0, endpoints.port):
        raise InputError(
            f"serve.port={config.port}: Serve already runs on this cluster, with port "
            f"{endpoints.port}. Set serve.port={endpoints.port}, or {_SHUTDOWN}."
        )
    if config.grpc_port is not None and endpoints.grpc_port is None:
        raise InputError(
            f"serve.grpc_port={config.grpc_port}: Serve already runs on this cluster, without this "
            f"service's gRPC. Set serve.grpc_port=null, or {_SHUTDOWN}."
        )
    if config.grpc_port not in (None, 0, endpoints.grpc_port):
        raise InputError(
            f"serve.grpc_port={config.grpc_port}: Serve already runs on this cluster, with gRPC on "
            f"port {endpoints.grpc_port}. Set serve.grpc_port={endpoints.grpc_port}, or "
            f"{_SHUTDOWN}."
        )
    actual = {
        "host": endpoints.host,
        "port": endpoints.port,
        "grpc_port": endpoints.grpc_port,
    }
    return config.model_copy(update=actual)
