"""Where a running Ray Serve listens, for which Ray has no public API."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeEndpoints:
    """Host and ports of a running Serve, which no deployment can change."""

    host: str
    port: int
    grpc_port: int  # 0: no gRPC
    grpc_services: tuple[str, ...]  # import paths of the functions that add services


def running_endpoints() -> ServeEndpoints | None:
    """Return where the connected cluster's Serve listens; None: no Serve runs."""
    import ray  # 1 s; with Ray
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    http = client.http_config
    grpc = ray.get(client._controller.get_grpc_config.remote())
    services = tuple(map(str, grpc.grpc_servicer_functions))
    return ServeEndpoints(str(http.host), int(http.port), int(grpc.port), services)
