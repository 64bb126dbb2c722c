"""A Serve that a cluster runs already: where it listens, which no deployment can change."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Return where the connected cluster's Serve listens; None: it runs none.

    Args:
        servicer: import path of the function that adds this service's gRPC to a server.
    """
    import ray
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    http = client.http_config
    grpc = ray.get(client._controller.get_grpc_config.remote())
    has_grpc = grpc.port > 0 and servicer in grpc.grpc_servicer_functions
    return RunningServe(str(http.host), int(http.port), int(grpc.port) if has_grpc else None)


def adopt(asked: ServeConfig, running: RunningServe) -> ServeConfig:
    """Return the settings with the host and ports of a running Serve.

    Raises:
        InputError: a requested host, other than the default, or a requested port, other than 0, is
            not Serve's.
    """
    if asked.host not in (ServeConfig.model_fields["host"].default, running.host):
        raise InputError(
            f"serve.host={asked.host!r}: Serve already runs on this cluster, with host "
            f"{running.host!r}. Set serve.host={running.host}, or {END_SERVE}."
        )
    if asked.port not in (0, running.port):
        raise InputError(
            f"serve.port={asked.port}: Serve already runs on this cluster, with port "
            f"{running.port}. Set serve.port={running.port}, or {END_SERVE}."
        )
    if asked.grpc_port is not None and running.grpc_port is None:
        raise InputError(
            f"serve.grpc_port={asked.grpc_port}: Serve already runs on this cluster, without this "
            f"service's gRPC. Set serve.grpc_port=null, or {END_SERVE}."
        )
    if asked.grpc_port not in (None, 0, running.grpc_port):
        raise InputError(
            f"serve.grpc_port={asked.grpc_port}: Serve already runs on this cluster, with gRPC on "
            f"port {running.grpc_port}. Set serve.grpc_port={running.grpc_port}, or {END_SERVE}."
        )
    return asked.replaced(host=running.host, port=running.port, grpc_port=running.grpc_port)
