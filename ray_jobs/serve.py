"""Serve a published model over HTTP."""

from __future__ import annotations

import logging
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from finsent.adapters.ray_serve import grpc_environment
from finsent.errors import ConfigError
from finsent.ray_session import joins_cluster, ray_session
from finsent.registry.registry import Registry
from ray_jobs._cli import Call, Interrupted, Job, JobSettings, main
from serve_app.config import ServeConfig
from serve_app.workers import HOOK

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeResult:
    """Result of the job: the addresses of the service."""

    address: str
    grpc_address: str | None
    model: str
    ports: Annotated[dict[str, int | str], "of the service's helpers"]
    startup_seconds: float


@dataclass(frozen=True)
class NewKeyResult:
    """Result of `new-key`."""

    key: Annotated[str, "shown this once"]
    name: str
    role: str
    file: str


def run(call: Call) -> ServeResult | NewKeyResult:
    """Deploy the service and, on a local Ray, wait for the signal that ends it."""
    settings = call.settings
    if call.arguments:
        return _add_key(settings.serve, call.arguments)
    # grpc and tokenizers take half a second to import, which `finsent --help` does without.
    from serve_app.launch.addresses import Addresses
    from serve_app.launch.local import checked_config, serving_environment

    is_local = not joins_cluster(settings)
    registry = Registry(settings.workspace.registry)
    config = checked_config(settings.serve, registry, is_local)
    with ExitStack() as stack:
        ports = stack.enter_context(serving_environment(config, is_local))
        workers = {
            "worker_process_setup_hook": HOOK,
            "env_vars": grpc_environment(config.host, config.grpc_port, is_local),
        }
        stack.enter_context(ray_session(settings, workers, uses_data=False))
        started = time.perf_counter()
        config = _deploy(settings, config, is_local)
        seconds = time.perf_counter() - started
        addresses = Addresses.of(config, ports)
        addresses.log(config.model, seconds)
        if is_local:
            log.info("Ctrl-C ends it")
            _wait_for_signal()
            if config.record:
                _end()
    return ServeResult(
        address=addresses.http,
        grpc_address=addresses.grpc,
        model=config.model,
        ports=ports.as_dict() if ports else {},
        startup_seconds=round(seconds, 3),
    )


def _deploy(settings: JobSettings, config: ServeConfig, is_local: bool) -> ServeConfig:
    # Ray Serve reads its environment at import, which is set only now.
    from serve_app.graph import build
    from serve_app.launch.deployment import deploy, wait_for_ports

    config = deploy(lambda final: build(settings.replaced(serve=final)), config, settings.serve)
    wait_for_ports(config, is_local)
    return config


def _end() -> None:
    """End the service before its Ray, which kills replicas without notice."""
    from serve_app.launch.deployment import end  # as in `_deploy`

    end()


def _wait_for_signal() -> None:
    """Wait for SIGINT or SIGTERM, the ordinary end of a service."""
    try:
        while True:
            signal.pause()
    except Interrupted as interrupted:
        log.info("ending after %s", signal.Signals(interrupted.signum).name)


def _add_key(config: ServeConfig, arguments: list[str]) -> NewKeyResult:
    from serve_app.auth import new_key  # imports service schemas, as above

    if len(arguments) != 3 or arguments[0] != "new-key":
        raise ConfigError(
            f"serve {' '.join(arguments)!r}: unknown arguments. Write nothing, or "
            "new-key NAME ROLE."
        )
    if config.api_keys is None:
        raise ConfigError("serve.api_keys=null: no file to add the key to. Set serve.api_keys.")
    path = Path(config.api_keys).expanduser().absolute()
    _, name, role = arguments
    key = new_key(path, name, role)
    sys.stderr.write("The key is shown once. Only its hash is stored.\n")
    return NewKeyResult(key, name, role, str(path))


JOB = Job(
    name="serve",
    summary="Serve a published model over HTTP, with a page for people at /. On a local Ray the "
    "job serves until Ctrl-C. On a cluster, with ray.address or under `ray job submit`, the job "
    "deploys the service and ends. The service follows an alias: after `registry promote` or "
    "`rollback`, replicas load the new version while the old version answers. `serve new-key "
    "NAME predict|admin` adds an API key to serve.api_keys.",
    result={"": ServeResult, "new-key": NewKeyResult},
    sections=("serve", "engine", "registry", "storage", "ray"),
    run=run,
    keeps_run=False,
    arguments="[new-key NAME ROLE]",
    home="serve",
)

if __name__ == "__main__":
    main(JOB)
