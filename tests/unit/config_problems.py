"""Config files, and the problems of wrong settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from finsent.config import load
from finsent.errors import ConfigError
from ray_jobs._settings import JobSettings

SERVE = Path(__file__).parents[2] / "configs" / "serve.yaml"  # Ray Serve's own form


def write(folder: Path, name: str, text: str | bytes) -> Path:
    """Write a config file."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problem(*overrides: str, files: tuple[Path, ...] = ()) -> str:
    """Return the error of settings that are refused."""
    with pytest.raises(ConfigError) as caught:
        load(JobSettings, files, overrides)
    return str(caught.value)
