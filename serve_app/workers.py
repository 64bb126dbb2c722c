"""The setup hook that Ray runs first in each worker of the service."""

from __future__ import annotations

import os

from finsent.adapters.ray_serve import restart_killed_haproxy, restrict_grpc_servers

HOOK = "serve_app.workers.prepare"


def prepare() -> None:
    """Change what Ray has no settings for."""
    restrict_grpc_servers()
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        restart_killed_haproxy()
