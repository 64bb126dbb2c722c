"""Private and fragile parts of Ray Serve 2.60, and of gRPC as Serve uses it.

Ray has no settings for where its gRPC servers listen, and none for the restart of a killed HAProxy.
`tests/unit/test_adapter_ray_serve.py` fails when an upgrade changes what this module relies on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

LOGGER = "ray.serve"  # has the handlers that write a replica's log
log = logging.getLogger(LOGGER)

# --- logs and status ------------------------------------------------------------------------------


def log_directory() -> str:
    """Return where Serve's processes on this machine write their logs; Ray must be running."""
    from ray.serve._private.logging_utils import get_serve_logs_dir  # Ray takes seconds to import

    return str(get_serve_logs_dir())


def log_to_serve(*names: str) -> None:
    """Write what these loggers log to the log of this replica."""
    for name in names:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = log.handlers
        logger.propagate = False


def is_deploying() -> bool:
    """Return whether the deployment of this replica starts or changes.

    Serve also starts a replica to replace a dead one, while the deployment is healthy.
    """
    from ray import serve  # Ray takes seconds to import

    context = serve.get_replica_context()
    application = serve.status().applications.get(context.app_name)
    deployment = application and application.deployments.get(context.deployment)
    return deployment is not None and deployment.status == "UPDATING"


# --- where gRPC servers listen --------------------------------------------------------------------

# Ray lets each of its gRPC servers listen on all addresses of the machine. One of them is the
# server of replicas for calls between replicas, which executes what it receives.
_PUBLIC_PORT = "FINSENT_GRPC_PORT"  # for clients
_PUBLIC_HOST = "FINSENT_GRPC_HOST"
_PRIVATE_HOST = "FINSENT_GRPC_OTHER_HOST"  # of all other ports; empty: all addresses
_ALL_ADDRESSES = "[::]:"


def grpc_environment(host: str, port: int | None, is_local: bool) -> dict[str, str]:
    """Return the environment of workers that `restrict_grpc_servers` reads.

    Args:
        host: address for clients.
        port: for clients; None: the service has none.
        is_local: all processes are on this machine, so that the other ports need loopback only.
    """
    return {
        _PUBLIC_HOST: host,
        _PUBLIC_PORT: "" if port is None else str(port),
        _PRIVATE_HOST: "127.0.0.1" if is_local else "",
    }


def grpc_address(requested: str) -> str:
    """Return where a gRPC server of this process must listen in place of all addresses."""
    if not requested.startswith(_ALL_ADDRESSES):
        return requested
    port = requested.removeprefix(_ALL_ADDRESSES)
    is_public = port != "0" and port == os.environ.get(_PUBLIC_PORT)
    host = os.environ.get(_PUBLIC_HOST if is_public else _PRIVATE_HOST, "")
    if host in ("", "0.0.0.0", "::"):
        return requested
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def restrict_grpc_servers() -> None:
    """Make the gRPC servers of this process listen on the address of `grpc_address`."""
    from grpc.aio._server import Server  # needed in workers only

    add_insecure, add_secure = Server.add_insecure_port, Server.add_secure_port

    def add_insecure_port(server: Server, address: str) -> int:
        return int(add_insecure(server, grpc_address(address)))

    def add_secure_port(server: Server, address: str, credentials: Any) -> int:
        return int(add_secure(server, grpc_address(address), credentials))

    Server.add_insecure_port = add_insecure_port
    Server.add_secure_port = add_secure_port


# --- the restart of a killed HAProxy --------------------------------------------------------------

# Ray notices by a health check that HAProxy was killed, and starts another process that starts
# HAProxy. That takes three to six seconds. The process that started HAProxy notices at once.
_PAUSE_SECONDS = 0.05  # in which Ray, if it ended HAProxy itself, forgets the process
restart_tasks: set[asyncio.Task[None]] = set()  # the event loop keeps no reference to its tasks


def restart_killed_haproxy() -> None:
    """Restart HAProxy at once when it is killed, if this process becomes Ray's manager of it."""
    from ray.serve._private.haproxy import HAProxyApi  # Ray takes seconds to import

    manager: Any = HAProxyApi
    start = manager._start_and_wait_for_haproxy

    async def start_watched(api: HAProxyApi, *arguments: Any, **options: Any) -> Any:
        process = await start(api, *arguments, **options)
        task = asyncio.get_running_loop().create_task(_watch(api, process))
        restart_tasks.add(task)
        task.add_done_callback(restart_tasks.discard)
        return process

    manager._start_and_wait_for_haproxy = start_watched


async def _watch(api: Any, process: asyncio.subprocess.Process) -> None:
    exit_code = await process.wait()
    if exit_code == 0:  # its successor, with another configuration, has asked it to end
        return
    await asyncio.sleep(_PAUSE_SECONDS)
    if api._proc is not process:
        return
    log.error("HAProxy (process %d) ended with exit code %d; restarting", process.pid, exit_code)
    try:
        await api.start()
    except Exception:
        log.exception("HAProxy did not restart; Ray's health check tries next")
