"""What Ray runs first in each worker of the service."""

from __future__ import annotations

import os

from serve_app import haproxy, listening

HOOK = "serve_app.workers.prepare"


def prepare() -> None:
    """Change what Ray has no settings for."""
    listening.restrict()
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        haproxy.restart_when_killed()
