"""Deploy a service on a connected Ray, wait until the service answers, and end it.

Import this module when the environment of `serve_app.launch.environment` is set: it imports Ray
Serve, which reads its environment then.
"""

from __future__ import annotations

import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, gRPCOptions

from finsent.adapters import ray_serve_launch
from finsent.adapters.ray_serve import log_directory
from finsent.errors import InputError
from serve_app.config import ServeConfig
from serve_app.graph import NAME
from serve_app.launch.ports import PORT_FIELDS, listening_ports, listens, reachable
from serve_app.launch.running import with_endpoints

log = logging.getLogger(__name__)

_SERVICER = "serve_app.grpc_server.add_to_server"
_PROXY_LOCATIONS = {"every_node": "EveryNode", "head": "HeadOnly"}
_POLL_SECONDS = 0.1
_PORT_SECONDS = 10.0  # for a port to listen once the service answers


def deploy(
    build: Callable[[ServeConfig], Any], config: ServeConfig, requested: ServeConfig
) -> ServeConfig:
    """Deploy the service on a connected Ray, and wait until it answers.

    Args:
        build: makes the application by the service's settings.
        config: the service's settings, with a free port in the place of each 0.
        requested: the settings with each 0, for a Serve that listens already.

    Returns:
        The service's settings, with the host and the ports where it listens.

    Raises:
        InputError: the service does not answer in time, or a Serve that runs already has other
            ports.
    """
    deadline = time.monotonic() + config.start_timeout
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    endpoints = ray_serve_launch.find_endpoints(_SERVICER)
    if endpoints is None:
        start_serve(config, deadline)
    else:
        config = with_endpoints(requested, endpoints)
    with suppress(TimeoutError):  # of proxies that still start
        ray_serve_launch.deploy(build(config), NAME)
    wait_until_running(config, deadline)
    return config


def start_serve(config: ServeConfig, deadline: float) -> None:
    """Start Serve's controller and, through it, the proxy.

    The proxy may fail to start. The controller starts another one then.

    Raises:
        InputError: there is no controller by the deadline.
    """
    grpc = config.grpc_port is not None and gRPCOptions(
        port=config.grpc_port, grpc_servicer_functions=[_SERVICER], enable_reflection=True
    )
    http = HTTPOptions(host=config.host, port=config.port)
    problem = "no answer"
    while time.monotonic() < deadline:
        try:
            serve.start(
                proxy_location=_PROXY_LOCATIONS[config.proxies],
                http_options=http,
                grpc_options=grpc or None,
            )
            return
        except (RayError, TimeoutError) as error:
            problem = _last_error(str(error))
            log.warning("Serve's proxy did not start (%s); waiting for another proxy", problem)
        with suppress(RayError):
            if ray_serve_launch.find_endpoints(_SERVICER) is not None:
                return
        time.sleep(_POLL_SECONDS)
    raise InputError(
        f"serve.start_timeout={config.start_timeout}: Ray Serve did not start within this time "
        f"({problem}). Free this machine of other work, or raise the timeout."
    )


def wait_until_running(config: ServeConfig, deadline: float) -> None:
    """Wait until the application runs and answers.

    Raises:
        InputError: the application failed, or does not answer by the deadline.
    """
    address = f"http://{reachable(config.host)}:{config.port}"
    while time.monotonic() < deadline:
        app = serve.status().applications.get(NAME)
        if app is not None and app.status == "DEPLOY_FAILED":
            raise InputError(f"serve: the service did not start: {_failure(app)}")
        # On a cluster that serves already the old replicas answer until the new replicas do.
        if app is not None and app.status == "RUNNING" and is_ready(address):
            return
        time.sleep(_POLL_SECONDS)
    raise InputError(
        f"serve.start_timeout={config.start_timeout}: {address} did not answer within this time. "
        f"See the logs in {log_directory()}, or raise the timeout."
    )


def end() -> None:
    """Delete the service's application, so that the recorder stores the answers that wait."""
    try:
        serve.delete(NAME)
    except (RayError, TimeoutError) as error:
        log.warning(
            "the last answers may not be in the prediction log: %s", _last_error(str(error))
        )


def is_ready(address: str) -> bool:
    """Return whether the service at an address is ready."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_for_ports(config: ServeConfig, is_local: bool) -> None:
    """Wait until the service's ports listen.

    Args:
        is_local: the service runs in child processes of this process.

    Raises:
        InputError: a port does not listen in time, or another program listens there.
    """
    deadline = time.monotonic() + _PORT_SECONDS
    for name in PORT_FIELDS:
        port = getattr(config, name)
        while port is not None and not (
            port in listening_ports() if is_local else listens(reachable(config.host), port)
        ):
            if time.monotonic() > deadline:
                raise InputError(
                    f"serve.{name}={port}: the service does not listen there. Another program may "
                    f"have taken the port: set serve.{name} to another port, 0 for a free one."
                )
            time.sleep(_POLL_SECONDS)


def _failure(app: Any) -> str:
    """Return why an application failed.

    Args:
        app: status of the application, as Ray Serve returns it.
    """
    messages = [app.message, *(deployment.message for deployment in app.deployments.values())]
    return _last_error("\n".join(messages))


def _last_error(text: str) -> str:
    """Return the last line of a traceback, or of another text, that names an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no reason is known"])[-1][:500]
