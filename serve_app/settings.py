"""The settings of the service: the library's sections and the section `serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finsent.config import load, setting
from finsent.settings import Settings
from serve_app.config import ServeConfig

_OTHER_SECTIONS = ("sweep",)  # of packages that the service does not import


class ServiceSettings(Settings):
    """The sections that the service uses."""

    serve: ServeConfig = setting(ServeConfig, "the service")


def load_service(files: Sequence[Path | str], overrides: Sequence[str]) -> ServiceSettings:
    """Load the service's settings from files that serve every job.

    Raises:
        ConfigError: as of `finsent.config.load`.
    """
    return load(ServiceSettings, files, overrides, ignored=_OTHER_SECTIONS)
