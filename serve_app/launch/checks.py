"""Check a service's settings before Ray starts."""

from __future__ import annotations

import socket
from pathlib import Path

from finsent.errors import InputError
from finsent.registry.registry import Registry
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.launch.ports import PORT_FIELDS, free_port
from serve_app.service.user_config import check_calibrations
from serve_app.tracing import check as check_tracing


def check_service(config: ServeConfig, registry: Registry) -> None:
    """Check models, calibrations, API keys and the address of traces.

    Raises:
        InputError: a model is missing or damaged, a file is unusable, or packages for
            `serve.otlp_endpoint` are missing.
        ConfigError: `serve.otlp_endpoint` is not an address.
    """
    for key, reference in (("model", config.model), ("shadow", config.shadow)):
        try:
            if reference is not None:
                registry.get(reference)
        except InputError as error:
            raise InputError(f"serve.{key}={reference!r}: {error}") from None
    check_calibrations(registry, config)
    if config.api_keys:
        Keys(Path(config.api_keys).expanduser())
    if config.otlp_endpoint is not None:
        check_tracing(config.otlp_endpoint)


def check_ports(config: ServeConfig) -> None:
    """Check that this process may listen on the ports of the service.

    Raises:
        InputError: a port is in use, or is not this machine's.
    """
    for name in PORT_FIELDS:
        port = getattr(config, name)
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((config.host, port or 0))
        except OSError as error:
            raise InputError(
                f"serve.host={config.host!r}, serve.{name}={port}: cannot listen there "
                f"({error.strerror}). End the program that does, or set serve.{name} to another "
                "port, 0 for a free one."
            ) from None


def with_free_ports(config: ServeConfig) -> ServeConfig:
    """Return settings with a free port in the place of each 0."""
    for name in PORT_FIELDS:
        if getattr(config, name) == 0:
            port = free_port(config.host, {config.port, config.grpc_port})
            config = config.replaced(**{name: port})
    return config
