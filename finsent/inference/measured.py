"""Measured speeds of backends on this machine, kept so that the next start need not measure."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finsent.files import sha256_file, write_json
from finsent.inference.config import EngineConfig
from finsent.inference.exports import EXPORTS
from finsent.inference.speed import LENGTHS, Decision

log = logging.getLogger(__name__)

MAX_AGE = 7 * 24 * 3600.0  # seconds; kernels, neighbors and limits of the machine change

# Two other busy processes on a core leave a third of it, so a third is load, not a wrong choice.
# The slowest backend has about 0.4 of the rate of the fastest, see README.md: below a quarter any
# of them would be better.
FAR_BELOW = 0.25
WINDOW_ROWS = 500
WINDOWS = 5  # in a row: one that is fast enough shows that the others were load

_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Measurement(BaseModel):
    """A stored choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    best: str
    rates: dict[str, _Rate]  # rows/s by backend
    measured: float  # Unix time


def file_of(model_dir: Path, config: EngineConfig, threads: int) -> Path:
    """Return the file for a model's exports and settings on this machine with these packages."""
    about = [
        sha256_file(model_dir / EXPORTS),
        config.backend,
        config.precision,
        config.compile,
        threads,
        platform.machine(),
        _cpu(),
        os.cpu_count(),
        *(_version(name) for name in ("onnxruntime", "openvino", "torch")),
    ]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "finsent" / "engine" / f"{key}.json"


def recall(file: Path, names: Collection[str], now: float) -> Measurement | None:
    """Read a stored choice.

    Args:
        names: backends to choose from.
        now: Unix time.

    Returns:
        None where the file is missing, unreadable, damaged or from another version, where other
        backends were measured, or where the measurement is older than MAX_AGE.
    """
    try:
        stored = Measurement.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None  # a cache: ignored silently
    is_valid = stored.rates.keys() == set(names) and stored.best in stored.rates
    # A time in the future: the clock was wrong when the choice was stored.
    return stored if is_valid and 0 <= now - stored.measured <= MAX_AGE else None


def remember(file: Path, decision: Decision, now: float) -> None:
    """Store a choice, where the home can be written to."""
    stored = Measurement(best=decision.best, rates=decision.rates, measured=now)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, stored.model_dump())
    except OSError as error:
        log.info("engine: the measured rates are not stored (%s)", error)


class Watch:
    """Compare the rate in use with the stored one; forget the stored choice if far below.

    The next start then measures again. This process keeps its backend: a measurement beside
    requests would slow them and be wrong.
    """

    def __init__(self, file: Path, rate: float, rows: int, streams: int) -> None:
        """Watch a backend.

        Args:
            file: of the stored choice.
            rate: stored, rows/s of all streams.
            rows: per micro-batch when measured.
        """
        self._file, self._rows, self._streams = file, rows, streams
        # Rows of other lengths count by their tokens.
        self._mean = sum(LENGTHS) / len(LENGTHS)
        self._limit = FAR_BELOW * rate
        self._lock = threading.Lock()
        self._seen_rows = self._seconds = 0.0
        self._slow_windows = 0
        self._is_done = False

    def note(self, rows: int, length: int, seconds: float) -> None:
        """Count a computed micro-batch.

        Only those like the measured ones count: small ones and long rows cost more per token.

        Args:
            rows: with padding.
            length: tokens per row, with padding.
            seconds: that one stream needed.
        """
        if self._is_done or rows < self._rows or not LENGTHS[0] <= length <= LENGTHS[-1]:
            return
        with self._lock:
            self._seen_rows += rows * length / self._mean
            self._seconds += seconds
            if self._seen_rows < WINDOW_ROWS or self._is_done:
                return
            rate = self._streams * self._seen_rows / self._seconds
            self._slow_windows = self._slow_windows + 1 if rate < self._limit else 0
            self._seen_rows = self._seconds = 0.0
            self._is_done = self._slow_windows == WINDOWS
        if self._is_done:
            self._forget(rate)

    def _forget(self, rate: float) -> None:
        with suppress(OSError):  # a home that is read-only: the choice ages anyway
            self._file.unlink(missing_ok=True)
        log.info(
            "engine: %.0f rows/s in use, %.0f when measured; the next start measures again",
            rate,
            self._limit / FAR_BELOW,
        )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo")
    text = lines.read_text() if lines.exists() else ""
    return next((line for line in text.splitlines() if line.startswith("model name")), "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
