"""Settings that change while a replica runs."""

from __future__ import annotations

from dataclasses import dataclass

from finsent.inference.config import EngineConfig
from serve_app.config import ServeConfig


@dataclass(slots=True)
class RuntimeConfig:
    """The current settings; the parts of a replica share one object and read it per request."""

    serve: ServeConfig
    engine: EngineConfig
