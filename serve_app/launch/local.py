"""What a service needs before Ray starts: checked settings, free ports, environment variables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from finsent.registry.registry import Registry
from serve_app.config import ServeConfig
from serve_app.grpc_server import size_limit
from serve_app.launch.checks import check_ports, check_service, with_free_ports
from serve_app.launch.environment import FAST, PLAIN, environment, unless_set
from serve_app.launch.ports import Ports, reserved_ports
from serve_app.launch.private_haproxy import end_orphans, private_haproxy

log = logging.getLogger(__name__)


def checked_config(config: ServeConfig, registry: Registry, is_local: bool) -> ServeConfig:
    """Check the service's settings, and return them with a free port in the place of each 0.

    Args:
        is_local: whether the service has a Ray of its own on this machine.

    Raises:
        InputError: a setting is wrong, or a port is in use.
    """
    check_service(config, registry)
    if is_local:
        for pid in end_orphans():
            log.warning("ended HAProxy (process %d) of a service that was killed", pid)
        check_ports(config)
    return with_free_ports(config)


@contextmanager
def serving_environment(config: ServeConfig, is_local: bool) -> Iterator[Ports | None]:
    """Set the environment of Ray Serve while the block runs.

    Yields:
        Ports of the service's helpers; None: there are no helpers of this service alone.
    """
    ports = None
    with ExitStack() as stack:
        if is_local and config.fast:
            ports = stack.enter_context(reserved_ports({config.port, config.grpc_port}))
            private = stack.enter_context(private_haproxy(ports))
            stack.enter_context(environment(unless_set(FAST) | private))
        elif is_local:
            stack.enter_context(environment(unless_set(PLAIN)))
        stack.enter_context(environment(unless_set(size_limit(config.limits))))
        yield ports
