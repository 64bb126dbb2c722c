"""Serve a published model over HTTP."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from finsent.errors import ConfigError, InputError
from ray_jobs._cli import Call, Interrupted, Job, Result, main
from ray_jobs._haproxy import LOOK_SECONDS, end_orphans, own_haproxy
from ray_jobs._ports import LOOPBACK, Ports, free_port, listens, own_listeners, own_ports
from ray_jobs._ray import joins_cluster, ray_session
from ray_jobs._running import adopt, running_serve
from ray_jobs._settings import JobSettings
from serve_app.config import ServeConfig
from serve_app.listening import environment
from serve_app.workers import HOOK

log = logging.getLogger(__name__)

# Read by Serve's processes when they import it, whatever `serve.fast` is.
_ANYWAY = {
    # Ray kills a proxy that is not ready by then. The default of 5 is too short on a busy machine.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    # Two services that start at once on the same port must not share it.
    "SERVE_SOCKET_REUSE_PORT_ENABLED": "0",
}
# HAProxy sends requests straight to the replicas, which then answer HTTP on their own event loop.
_FAST = {
    **_ANYWAY,
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # The first one makes this 1,000 lines, which are seen late, and never of a replica that dies.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    # A replica that dies takes the requests with it that it was working on: they are sent to
    # another one, for all that is asked here may be asked twice. HAProxy can do that with requests
    # that it holds whole, so it is told to (in the lines after; Ray has no settings for it) as far
    # as they fit into its buffer. One that does not come is refused (408) rather than held for
    # Ray's hour. And it says when it took each request, so that a deadline counts from there.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response response-timeout 500\n"
    "    option http-buffer-request\n"
    "    timeout http-request 10s\n"
    "    unique-id-format t=%[date(0,ms)]\n"
    "    unique-id-header X-Request-Start",
    "RAY_SERVE_HAPROXY_RETRIES": "5",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "131072",
}
# Without `serve.fast` Ray looks after its proxy as often as after HAProxy.
_SLOW = {**_ANYWAY, "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": LOOK_SECONDS}
_PORTS = ("port", "grpc_port")
_PORT_SECONDS = 10.0  # for a port to listen once the service answers
_SERVICER = "serve_app.grpc_server.add_to_server"


def check(settings: JobSettings) -> None:
    """Fail before Ray starts.

    Raises:
        InputError: the model is not there or damaged, the port is taken, or packages for
            `serve.otlp_endpoint` are missing.
        ConfigError: `serve.otlp_endpoint` is no address.
    """
    from finsent.registry.registry import Registry
    from serve_app.auth import Keys
    from serve_app.live import check_calibrations
    from serve_app.tracing import check as check_tracing

    config = settings.serve
    for key, reference in (("model", config.model), ("shadow", config.shadow)):
        try:
            if reference is not None:
                Registry(settings.registry_dir).get(reference)
        except InputError as error:
            raise InputError(f"serve.{key}={reference!r}: {error}") from None
    check_calibrations(Registry(settings.registry_dir), config)
    if config.api_keys:
        Keys(Path(config.api_keys).expanduser())
    if config.otlp_endpoint is not None:
        check_tracing(config.otlp_endpoint)
    if joins_cluster(settings):
        return
    for pid in end_orphans():
        log.warning("ended HAProxy (process %d) of a service that was killed", pid)
    for name in _PORTS:
        port = getattr(config, name)
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((config.host, port or 0))
        except OSError as error:
            raise InputError(
                f"serve.host={config.host!r}, serve.{name}={port}: cannot listen there "
                f"({error.strerror}); end what does, or set serve.{name} to another, 0 for a free "
                "one"
            ) from None


def start(settings: JobSettings, asked: ServeConfig) -> ServeConfig:
    """Deploy on a running Ray and wait until it answers.

    Args:
        settings: with a free port in the place of each 0.
        asked: the settings before that.

    Returns:
        The service's settings, with the host and the ports where it listens.

    Raises:
        InputError: it does not answer in time, or a Serve that runs already has other ports.
    """
    from ray import serve

    from serve_app.graph import NAME, build

    config = settings.serve
    deadline = time.monotonic() + config.start_timeout
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    running = running_serve(_SERVICER)
    if running is None:
        _start_serve(config, deadline)
    else:
        config = adopt(asked, running)
    settings = settings.replaced(serve=config)
    with suppress(TimeoutError):  # of proxies that still start; the application is deployed then
        # Unlike serve.run it does not wait, for ever where no CPU is free.
        serve.api._run(build(settings), name=NAME, route_prefix="/", _blocking=False)
    _wait(config, deadline)
    return config


def _start_serve(config: ServeConfig, deadline: float) -> None:
    """Start Serve's controller and, through it, the proxy.

    The proxy may fail to start. The controller starts another one then.

    Raises:
        InputError: there is no controller by the deadline.
    """
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.config import HTTPOptions, gRPCOptions

    grpc = config.grpc_port is not None and gRPCOptions(
        port=config.grpc_port, grpc_servicer_functions=[_SERVICER], enable_reflection=True
    )
    http = HTTPOptions(host=config.host, port=config.port)
    problem = "no answer"
    while time.monotonic() < deadline:
        try:
            serve.start(http_options=http, grpc_options=grpc or None)
            return
        except (RayError, TimeoutError) as error:
            problem = _last_error(str(error))
            log.warning("Serve's proxy did not start (%s); waiting for another one", problem)
        with suppress(RayError):
            if running_serve(_SERVICER) is not None:
                return
        time.sleep(0.1)
    raise InputError(
        f"serve.start_timeout={config.start_timeout}: Ray Serve did not start by then ({problem}). "
        "Free this machine of other work, or raise the timeout."
    )


def reachable(host: str) -> str:
    """Return the address that a client on this machine uses for a host that servers listen on."""
    return LOOPBACK if host in ("0.0.0.0", "::") else host


def with_free_ports(config: ServeConfig) -> ServeConfig:
    """Return the settings with a free port in the place of each 0."""
    for name in _PORTS:
        if getattr(config, name) == 0:
            free = free_port(config.host, {config.port, config.grpc_port})
            config = config.replaced(**{name: free})
    return config


def _wait(config: ServeConfig, deadline: float) -> None:
    from ray import serve

    from serve_app import logs
    from serve_app.graph import NAME

    address = f"http://{reachable(config.host)}:{config.port}"
    while time.monotonic() < deadline:
        app = serve.status().applications.get(NAME)
        if app is not None and app.status == "DEPLOY_FAILED":
            raise InputError(f"serve: the service did not start: {_reason(app)}")
        # On a cluster that serves already the old replicas answer until the new ones do.
        if app is not None and app.status == "RUNNING" and _answers(address):
            return
        time.sleep(0.1)
    raise InputError(
        f"serve.start_timeout={config.start_timeout}: {address} does not answer by then; see "
        f"the logs in {logs.folder()}, or raise the timeout"
    )


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False  # not yet


def _reason(app: Any) -> str:
    texts = [app.message, *(one.message for one in app.deployments.values())]
    return _last_error("\n".join(texts))


def _last_error(text: str) -> str:
    """Return the last line of a traceback, or of another text, that names an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no reason is known"])[-1][:500]


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    if call.arguments:
        return _new_key(settings, call.arguments)
    check(settings)
    from serve_app.grpc_server import size_limit

    is_local = not joins_cluster(settings)
    config = with_free_ports(settings.serve)
    with ExitStack() as stack:
        ports = _own_helpers(stack, config) if is_local and config.fast else None
        if is_local and not config.fast:
            stack.enter_context(_environment(_unless_set(_SLOW)))
        stack.enter_context(_environment(_unless_set(size_limit(config.limits))))
        workers = {
            "worker_process_setup_hook": HOOK,
            "env_vars": environment(config.host, config.grpc_port, is_local),
        }
        stack.enter_context(ray_session(settings, workers))
        started = time.perf_counter()
        config = start(settings.replaced(serve=config), settings.serve)
        _wait_for_ports(config, is_local)
        seconds = time.perf_counter() - started
        _report(config, ports, seconds)
        if is_local:
            log.info("Ctrl-C ends it")
            _until_signal()
    return {
        "address": f"http://{reachable(config.host)}:{config.port}",
        "grpc_address": _grpc_address(config),
        "model": config.model,
        "ports": ports.as_dict() if ports else {},
        "startup_seconds": round(seconds, 3),
    }


def _own_helpers(stack: ExitStack, config: ServeConfig) -> Ports:
    """Give the service's helpers ports and files of its own until the stack is closed."""
    ports = stack.enter_context(own_ports({config.port, config.grpc_port}))
    own = stack.enter_context(own_haproxy(ports))
    stack.enter_context(_environment(_unless_set(_FAST) | own))
    return ports


def _unless_set(values: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables with the values that they have already, if any."""
    return {name: os.environ.get(name, value) for name, value in values.items()}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which Ray's processes read, until the context ends."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _grpc_address(config: ServeConfig) -> str | None:
    return None if config.grpc_port is None else f"{reachable(config.host)}:{config.grpc_port}"


def _report(config: ServeConfig, ports: Ports | None, seconds: float) -> None:
    from serve_app import logs

    address = f"http://{reachable(config.host)}:{config.port}"
    log.info("serving %s at %s/ after %.1f s", config.model, address, seconds)
    log.info("page: %s/   API: %s/docs   metrics: %s/metrics", address, address, address)
    log.info("logs: %s (on each machine its own)", logs.folder())
    if config.grpc_port is not None:
        log.info("gRPC: %s, with reflection", _grpc_address(config))
    if ports is not None:
        described = ", ".join(f"{name} {port}" for name, port in ports.as_dict().items())
        log.info("helpers, on %s only: %s", LOOPBACK, described)


def _wait_for_ports(config: ServeConfig, is_local: bool) -> None:
    """Wait until the service's ports listen.

    Args:
        is_local: the service runs in processes of this job.

    Raises:
        InputError: a port does not listen in time, or another program listens there.
    """
    deadline = time.monotonic() + _PORT_SECONDS
    for name in _PORTS:
        port = getattr(config, name)
        while port is not None and not (
            port in own_listeners() if is_local else listens(reachable(config.host), port)
        ):
            if time.monotonic() > deadline:
                raise InputError(
                    f"serve.{name}={port}: the service does not listen there. Another program may "
                    f"have taken the port: set serve.{name} to another, 0 for a free one."
                )
            time.sleep(0.1)


def _until_signal() -> None:
    """Wait for SIGINT or SIGTERM: here they are the ordinary end."""
    try:
        while True:
            signal.pause()
    except Interrupted as interrupted:
        log.info("ending after %s", signal.Signals(interrupted.signum).name)


def _new_key(settings: JobSettings, arguments: list[str]) -> Result:
    from serve_app.auth import new_key

    if len(arguments) != 3 or arguments[0] != "new-key":
        raise ConfigError(f"serve {' '.join(arguments)!r}: write nothing, or new-key NAME ROLE")
    if settings.serve.api_keys is None:
        raise ConfigError("serve.api_keys: null; name the file that the key is added to")
    path = Path(settings.serve.api_keys).expanduser().absolute()
    value = new_key(path, arguments[1], arguments[2])
    sys.stderr.write("The key is shown once; only its hash is kept.\n")
    return {"key": value, "name": arguments[1], "role": arguments[2], "file": str(path)}


JOB = Job(
    name="serve",
    summary="Serve a published model over HTTP, with a page for people at /: on a local Ray until "
    "Ctrl-C, or, with ray.address or under `ray job submit`, on a cluster, where it stays when "
    "this job has ended. An alias is followed: after `registry promote` or `rollback` replicas "
    "load the other version while the old one answers. `serve new-key NAME predict|admin` adds an "
    "API key to serve.api_keys.",
    result="address, grpc_address, model, ports, startup_seconds, seconds; new-key: key, name, "
    "role, file",
    sections=("serve", "engine", "registry", "storage", "ray"),
    run=run,
    keeps_run=False,
    arguments="[new-key NAME ROLE]",
    home="serve",
)

if __name__ == "__main__":
    main(JOB)
