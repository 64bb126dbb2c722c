"""What was measured of backends on this machine, kept so that the next start need not measure."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Collection
from pathlib import Path

from finsent.errors import InputError
from finsent.files import read_json, sha256_file, write_json
from finsent.inference.config import EngineConfig
from finsent.inference.exports import EXPORTS

log = logging.getLogger(__name__)


def file_of(model_dir: Path, config: EngineConfig, threads: int) -> Path:
    """The file for a model's exports and settings on this machine with these packages."""
    about = [
        sha256_file(model_dir / EXPORTS), config.backend, config.precision, config.compile, threads,
        platform.machine(), _cpu(), os.cpu_count(),
        *(_version(name) for name in ("onnxruntime", "openvino", "torch")),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "finsent" / "engine" / f"{key}.json"


def recall(file: Path, names: Collection[str]) -> dict[str, float]:
    """Rows/s by name; nothing where not exactly these were measured."""
    try:
        rates = read_json(file)
    except (InputError, OSError):
        return {}  # never measured, or a cache that is not ours to mend
    return rates if isinstance(rates, dict) and rates.keys() == set(names) else {}


def remember(file: Path, rates: dict[str, float]) -> None:
    """Keep what was measured, where the home can be written to."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, rates)
    except OSError as error:
        log.info("engine: what was measured is not kept (%s)", error)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo")
    text = lines.read_text() if lines.exists() else ""
    return next((line for line in text.splitlines() if line.startswith("model name")), "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
