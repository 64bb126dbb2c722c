"""All settings of all jobs in one closed type, so that one YAML file serves every job."""

from __future__ import annotations

from serve_app.settings import ServiceSettings
from tune.settings import SweepSettings


class JobSettings(SweepSettings, ServiceSettings):
    """Everything that a user can set."""
