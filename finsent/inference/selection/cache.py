"""Store the measured rates of backends on this machine for the next start."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from finsent.files import sha256_file
from finsent.inference.config import EngineConfig
from finsent.inference.selection.benchmark import Decision
from finsent.modeling.model_dir import EXPORTS
from finsent.records import Record

log = logging.getLogger(__name__)

# Kernels, the limits of a container and other tenants of a machine change.
MAX_AGE_SECONDS = 7 * 24 * 3600.0

_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StoredSelection(Record):
    """A selected backend and the rates of all candidates."""

    best: str
    rates: dict[str, _Rate]  # rows/s by backend
    measured: float  # Unix time


def cache_file(model_dir: Path, config: EngineConfig, threads: int) -> Path:
    """Return the file for a model's exports and settings on this machine with these packages."""
    key_parts = [
        sha256_file(model_dir / EXPORTS),
        config.backend,
        config.precision,
        config.compile,
        threads,
        platform.machine(),
        _cpu_model(),
        os.cpu_count(),
        *(_version(name) for name in ("onnxruntime", "openvino", "torch")),
    ]
    key = hashlib.sha256(json.dumps(key_parts).encode()).hexdigest()[:32]
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "finsent" / "engine" / f"{key}.json"


def read(file: Path, names: Collection[str], now: float) -> StoredSelection | None:
    """Read a stored selection.

    Args:
        names: backends to select from.
        now: Unix time.

    Returns:
        None where the file is missing, unreadable, damaged or from another version, where other
        backends were measured, or where the measurement is older than MAX_AGE_SECONDS.
    """
    try:
        stored = StoredSelection.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None  # a cache: the next measurement replaces the file
    is_valid = stored.rates.keys() == set(names) and stored.best in stored.rates
    # A time in the future: the clock was wrong when the selection was stored.
    return stored if is_valid and 0 <= now - stored.measured <= MAX_AGE_SECONDS else None


def write(file: Path, decision: Decision, now: float) -> None:
    """Store a selection; log where the directory is read-only."""
    stored = StoredSelection(best=decision.best, rates=decision.rates, measured=now)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        stored.write(file)
    except OSError as error:
        log.info("engine: the measured rates are not stored (%s)", error)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return next((line for line in text.splitlines() if line.startswith("model name")), "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
