"""Which backend to use: the one that is asked for, or the fastest that kept the quality."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from finsent.errors import InputError
from finsent.extras import EXTRAS, is_installed, missing_extra
from finsent.inference import measured
from finsent.inference.backends import Backend
from finsent.inference.config import EngineConfig
from finsent.inference.exports import Export, installed, read_exports
from finsent.inference.measured import Watch
from finsent.inference.speed import Clock, Rounds, decide, rows_of
from finsent.inference.speed import measure as measure_backends

log = logging.getLogger(__name__)

# Seconds for all candidates to load and to take their turns. MiniLM needs 5, BERT-large 20 times
# as long; on a machine that is too busy for that no measurement would be worth anything.
MEASURE_TIMEOUT = 180.0

Measure = Callable[[Path, EngineConfig], Rounds]


@dataclass(frozen=True)
class Choice:
    """A loaded backend."""

    backend: Backend
    rates: dict[str, float] = field(default_factory=dict)  # rows/s by name; empty: not measured
    watch: Watch | None = None  # where the choice is stored


def choose(
    model_dir: Path,
    config: EngineConfig,
    measure: Measure | None = None,
    now: Callable[[], float] = time.time,
) -> Choice:
    """Load a backend.

    Args:
        measure: measures all candidates; None: `measure_elsewhere`.
        now: Unix time.

    Raises:
        InputError: the requested backend is missing, or did not keep the model's quality.
    """
    loaders = _candidates(model_dir, config)
    if len(loaders) == 1:
        [load] = loaders.values()
        return Choice(load())
    file = measured.file_of(model_dir, config, threads_of(config))
    stored = measured.recall(file, loaders.keys(), now())
    if stored is not None:
        best, rates = stored.best, stored.rates
        _log_fastest(best, rates, "measured before")
    else:
        decision = decide((measure or measure_elsewhere)(model_dir, config), loaders.keys())
        best, rates = decision.best, decision.rates
        if decision.is_clear:
            measured.remember(file, decision, now())
            _log_fastest(best, rates, "measured now")
        else:
            log.info(
                "engine: %s, usually the fastest: other load hides the differences; the next start "
                "measures again (rows/s: %s)",
                best,
                _listed(rates) or "none in time",
            )
            return Choice(loaders[best](), rates)
    backend = loaders[best]()
    return Choice(backend, rates, Watch(file, rates[best], rows_of(backend), backend.streams))


def _log_fastest(best: str, rates: dict[str, float], when: str) -> None:
    log.info("engine: %s is the fastest here (rows/s, %s: %s)", best, when, _listed(rates))


def _listed(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.0f}" for name, rate in sorted(rates.items()))


def measure_here(model_dir: Path, config: EngineConfig, clock: Clock = time.perf_counter) -> Rounds:
    """Load and measure all candidates in this process.

    Raises:
        InputError: a candidate can't be loaded.
    """
    loaders = _candidates(model_dir, config)
    return measure_backends({name: load() for name, load in loaders.items()}, clock)


def measure_elsewhere(
    model_dir: Path, config: EngineConfig, timeout: float = MEASURE_TIMEOUT
) -> Rounds:
    """`measure_here` in another process, as candidates that lose would keep memory of this one.

    Where that process fails, measure here, which raises the error.

    Returns:
        Nothing where that process times out.
    """
    try:
        done = subprocess.run(
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
    rounds: Rounds = json.loads(done.stdout) if done.returncode == 0 else {}
    return rounds or measure_here(model_dir, config)


def threads_of(config: EngineConfig) -> int:
    """Compute threads to use."""
    return config.threads or len(os.sched_getaffinity(0))


def _candidates(model_dir: Path, config: EngineConfig) -> dict[str, Callable[[], Backend]]:
    threads = threads_of(config)
    exports = read_exports(model_dir) if config.backend != "torch" else []
    found: dict[str, Callable[[], Backend]] = {}
    for one in exports:
        asked = config.backend in ("auto", one.backend)
        if asked and config.precision in ("auto", one.precision) and installed(one.backend):
            file = model_dir / str(one.file)
            found[one.name] = partial(load_export, file, one.backend, one.precision, threads)
    exact = config.precision in ("auto", "fp32")
    # On a CPU an exported graph always wins, and torch takes seconds and memory to import.
    if config.backend == "torch" or (config.backend == "auto" and (not found or _has_gpu())):
        precisions = ["fp32"] if exact else []
        if config.precision == "bf16":  # never by itself: its parity was not measured
            precisions = ["bf16"]
        for precision in precisions:
            found[f"torch-{precision}"] = _torch_loader(model_dir, precision, config, threads)
    if not found:
        raise _nothing(model_dir, config, exports)
    return found


def _has_gpu() -> bool:
    # Asked of the driver's files, as torch would take seconds to import.
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def _nothing(model_dir: Path, config: EngineConfig, exports: list[Export]) -> InputError:
    asked = f"engine.backend={config.backend!r}, engine.precision={config.precision!r}"
    if config.backend in EXTRAS and not is_installed(config.backend):
        return missing_extra(config.backend, asked, "set engine.backend=auto")
    usable = ", ".join(one.name for one in exports) or "nothing"
    return InputError(
        f"{asked}: {str(model_dir)!r} is exported to {usable} for use there; export it with "
        "`python -m ray_jobs.export` and publish it, or set both to auto"
    )


def load_export(file: Path, backend: str, precision: str, threads: int) -> Backend:
    """A backend of an exported file."""
    if backend == "openvino":
        from finsent.inference.backends.openvino import OpenvinoBackend

        return OpenvinoBackend(file, precision, threads)
    from finsent.inference.backends.onnx import OnnxBackend

    return OnnxBackend(file, precision, threads)


def _torch_loader(
    model_dir: Path, precision: str, config: EngineConfig, threads: int
) -> Callable[[], Backend]:
    def load() -> Backend:
        from finsent.inference.backends.torch import TorchBackend

        return TorchBackend(model_dir, precision, threads, config.compile)

    return load


if __name__ == "__main__":
    rounds = measure_here(Path(sys.argv[1]), EngineConfig.model_validate_json(sys.argv[2]))
    sys.stdout.write(json.dumps(rounds))
