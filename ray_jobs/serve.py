"""Serve a published model over HTTP."""

from __future__ import annotations

import errno
import logging
import os
import random
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from finsent.errors import ConfigError, InputError
from finsent.settings import Settings
from ray_jobs._cli import Call, Interrupted, Job, Result, main
from ray_jobs._ray import ray_session

log = logging.getLogger(__name__)

# Read by Serve's processes when they import it. HAProxy sends requests straight to the replicas,
# which then answer HTTP on their own event loop.
_FAST = {
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
_PORTS = ("port", "grpc_port")
_FREE = range(20_000, 30_000)  # below those of clients, and those of Serve's replicas
_QUICK = {  # controllers look at queues this often (seconds); default 10
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}


_SERVICER = "serve_app.grpc_server.add_to_server"


def free_port(host: str) -> int:
    """A port that nobody listens on, and that the system gives to nobody who does not name it.

    Raises:
        OSError: there is none, or nobody can listen on that host.
    """
    for port in random.sample(_FREE, len(_FREE)):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
    raise OSError(errno.EADDRINUSE, f"no port of {_FREE} is free", host)


def check(settings: Settings) -> None:
    """Fail before Ray starts.

    Raises:
        InputError: the model is not there or damaged, the port is taken, or packages for
            `serve.otlp_endpoint` are missing.
        ConfigError: `serve.otlp_endpoint` is no address.
    """
    from finsent.registry.registry import Registry
    from serve_app.auth import Keys
    from serve_app.tracing import check as check_tracing

    config = settings.serve
    for key, reference in (("model", config.model), ("shadow", config.shadow)):
        try:
            if reference is not None:
                Registry(settings.registry_dir).get(reference)
        except InputError as error:
            raise InputError(f"serve.{key}={reference!r}: {error}") from None
    if config.api_keys:
        Keys(Path(config.api_keys).expanduser())
    if config.otlp_endpoint is not None:
        check_tracing(config.otlp_endpoint)
    if settings.ray.address or os.environ.get("RAY_ADDRESS"):
        return
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


def start(settings: Settings) -> str:
    """Deploy on a running Ray and wait until it answers; returns the address.

    Raises:
        InputError: it does not answer in time.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions, gRPCOptions

    from serve_app.graph import NAME, build

    config = settings.serve
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    grpc = config.grpc_port is not None and gRPCOptions(
        port=config.grpc_port, grpc_servicer_functions=[_SERVICER], enable_reflection=True
    )
    serve.start(
        http_options=HTTPOptions(host=config.host, port=config.port), grpc_options=grpc or None
    )
    # Unlike serve.run it does not wait, for ever where no CPU is free.
    serve.api._run(build(settings), name=NAME, route_prefix="/", _blocking=False)
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    address = f"http://{host}:{config.port}"
    _wait(address, config.start_timeout)
    return address


def _wait(address: str, seconds: int) -> None:
    from ray import serve

    from serve_app import logs
    from serve_app.graph import NAME

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        app = serve.status().applications.get(NAME)
        if app is not None and app.status == "DEPLOY_FAILED":
            raise InputError(f"serve: the service did not start: {_reason(app)}")
        # On a cluster that serves already the old replicas answer until the new ones do.
        if app is not None and app.status == "RUNNING" and _answers(address):
            return
        time.sleep(0.1)
    raise InputError(
        f"serve.start_timeout={seconds}: {address} does not answer by then; see the logs in "
        f"{logs.folder()}, or raise the timeout"
    )


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False  # not yet


def _reason(app: Any) -> str:
    texts = [app.message, *(one.message for one in app.deployments.values())]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return str((errors or lines or ["no reason is known"])[-1])[:500]


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    if call.arguments:
        return _new_key(settings, call.arguments)
    check(settings)
    from serve_app import logs
    from serve_app.grpc_server import size_limit

    config = settings.serve
    free = {name: free_port(config.host) for name in _PORTS if getattr(config, name) == 0}
    config = config.model_copy(update=free)
    settings = settings.model_copy(update={"serve": config})
    # Ports of its own, so that two services fit on one machine.
    fast = _FAST | {
        f"RAY_SERVE_HAPROXY_{what}_PORT": str(free_port("0.0.0.0")) for what in ("STATS", "METRICS")
    }
    for name, value in {
        **_QUICK,
        **size_limit(config.limits),
        **(fast if config.fast else {}),
    }.items():
        os.environ.setdefault(name, value)
    with ray_session(settings):
        started = time.perf_counter()
        address = start(settings)
        seconds = time.perf_counter() - started
        log.info("serving %s at %s/ after %.1f s", config.model, address, seconds)
        log.info("page: %s/   API: %s/docs   metrics: %s/metrics", address, address, address)
        log.info("logs: %s (on each machine its own)", logs.folder())
        if config.grpc_port is not None:
            log.info("gRPC: %s:%d, with reflection", config.host, config.grpc_port)
        joined = bool(settings.ray.address or os.environ.get("RAY_ADDRESS"))
        if not joined:
            log.info("Ctrl-C ends it")
            _until_signal()
    return {
        "address": address,
        "grpc_address": None if config.grpc_port is None else f"{config.host}:{config.grpc_port}",
        "model": config.model,
        "startup_seconds": round(seconds, 3),
    }


def _until_signal() -> None:
    """Wait for SIGINT or SIGTERM: here they are the ordinary end."""
    try:
        while True:
            signal.pause()
    except Interrupted as interrupted:
        log.info("ending after %s", signal.Signals(interrupted.signum).name)


def _new_key(settings: Settings, arguments: list[str]) -> Result:
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
    result="address, grpc_address, model, startup_seconds, seconds; new-key: key, name, role, file",
    sections=("serve", "engine", "registry", "storage", "ray"),
    run=run,
    keeps_run=False,
    arguments="[new-key NAME ROLE]",
    home="serve",
)

if __name__ == "__main__":
    main(JOB)
