"""Addresses of a service, for its log and the job's result."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from finsent.adapters.ray_serve import log_directory
from serve_app.config import ServeConfig
from serve_app.launch.ports import LOOPBACK, Ports, reachable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Addresses:
    """Addresses of a service, as a client on this machine reaches them."""

    http: str
    grpc: str | None  # None: the service does not answer gRPC
    helpers: Ports | None  # None: there are no helpers of this service alone

    @classmethod
    def of(cls, config: ServeConfig, helpers: Ports | None) -> Addresses:
        """Return the addresses of a service that listens as its settings say."""
        host = reachable(config.host)
        grpc = None if config.grpc_port is None else f"{host}:{config.grpc_port}"
        return cls(f"http://{host}:{config.port}", grpc, helpers)

    def log(self, model: str, seconds: float) -> None:
        """Log the addresses.

        Args:
            model: reference of the served model.
            seconds: that the start took.
        """
        log.info("serving %s at %s/ after %.1f s", model, self.http, seconds)
        log.info("page: %s/   API: %s/docs   metrics: %s/metrics", *[self.http] * 3)
        log.info("logs: %s (on each machine its own)", log_directory())
        if self.grpc is not None:
            log.info("gRPC: %s, with reflection", self.grpc)
        if self.helpers is not None:
            ports = ", ".join(f"{name} {port}" for name, port in self.helpers.as_dict().items())
            log.info("helpers, on %s only: %s", LOOPBACK, ports)
