"""Select the backend: the configured one, or the fastest of all that kept the model's quality."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from finsent.inference.backends import Backend
from finsent.inference.config import EngineConfig
from finsent.inference.selection import cache
from finsent.inference.selection.benchmark import (
    Clock,
    Rounds,
    benchmark_rows,
    decide,
    measure_rates,
)
from finsent.inference.selection.candidates import candidate_loaders, thread_count
from finsent.inference.selection.rate_monitor import RateMonitor

log = logging.getLogger(__name__)

# For all candidates to load and to be measured. MiniLM needs 5 s, BERT-large 20 times as long. On a
# machine that is too busy for that, a measurement would be noise.
MEASURE_TIMEOUT_SECONDS = 180.0

Measure = Callable[[Path, EngineConfig], Rounds]


@dataclass(frozen=True)
class Selection:
    """A loaded backend, and how it was selected."""

    backend: Backend
    rates: dict[str, float] = field(default_factory=dict)  # rows/s by name; empty: not measured
    monitor: RateMonitor | None = None  # where the selection is stored


def select_backend(
    model_dir: Path,
    config: EngineConfig,
    measure: Measure | None = None,
    now: Callable[[], float] = time.time,
) -> Selection:
    """Load the configured backend, or the fastest one.

    Args:
        measure: measures all candidates; None: `measure_in_subprocess`.
        now: Unix time.

    Raises:
        InputError: the configured backend is missing, or did not keep the model's quality.
    """
    loaders = candidate_loaders(model_dir, config)
    if len(loaders) == 1:
        [load] = loaders.values()
        return Selection(load())
    file = cache.cache_file(model_dir, config, thread_count(config))
    stored = cache.read(file, loaders.keys(), now())
    if stored is not None:
        best, rates = stored.best, stored.rates
        _log_fastest(best, rates, "measured before")
    else:
        decision = decide((measure or measure_in_subprocess)(model_dir, config), loaders.keys())
        best, rates = decision.best, decision.rates
        if not decision.is_clear:
            log.info(
                "engine: %s, usually the fastest: other load hides the differences; the next start "
                "measures again (rows/s: %s)",
                best,
                _listed(rates) or "none in time",
            )
            return Selection(loaders[best](), rates)
        cache.write(file, decision, now())
        _log_fastest(best, rates, "measured now")
    backend = loaders[best]()
    monitor = RateMonitor(file, rates[best], benchmark_rows(backend), backend.streams)
    return Selection(backend, rates, monitor)


def _log_fastest(best: str, rates: dict[str, float], when: str) -> None:
    log.info("engine: %s is the fastest here (rows/s, %s: %s)", best, when, _listed(rates))


def _listed(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.0f}" for name, rate in sorted(rates.items()))


def measure_in_process(
    model_dir: Path, config: EngineConfig, clock: Clock = time.perf_counter
) -> Rounds:
    """Load and measure all candidates in this process.

    Raises:
        InputError: a candidate cannot be loaded.
    """
    loaders = candidate_loaders(model_dir, config)
    return measure_rates({name: load() for name, load in loaders.items()}, clock)


def measure_in_subprocess(
    model_dir: Path, config: EngineConfig, timeout: float = MEASURE_TIMEOUT_SECONDS
) -> Rounds:
    """Load and measure all candidates in a subprocess, whose memory is freed at its end.

    Where the subprocess fails, measure in this process, which raises the error.

    Args:
        timeout: in seconds.

    Returns:
        The rounds; empty where the subprocess timed out.
    """
    try:
        process = subprocess.run(
            [sys.executable, "-m", __name__, str(model_dir), config.model_dump_json()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return {}
    rounds: Rounds = json.loads(process.stdout) if process.returncode == 0 else {}
    return rounds or measure_in_process(model_dir, config)


if __name__ == "__main__":
    measured = measure_in_process(Path(sys.argv[1]), EngineConfig.model_validate_json(sys.argv[2]))
    sys.stdout.write(json.dumps(measured))
