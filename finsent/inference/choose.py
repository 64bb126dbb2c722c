"""Which backend to use: the one that is asked for, or the fastest that kept the quality."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import numpy as np

from finsent.errors import InputError
from finsent.inference import measured
from finsent.inference.backends import Backend
from finsent.inference.config import EngineConfig
from finsent.inference.exports import Export, installed, read_exports

log = logging.getLogger(__name__)

_SECONDS = 0.25  # of measuring, each
_LENGTHS = (16, 24, 32, 48)  # tokens, as financial sentences have them
_EXTRAS = {"openvino": "pip install 'finsent[openvino]'"}


def choose(model_dir: Path, config: EngineConfig) -> tuple[Backend, dict[str, float]]:
    """Load a backend.

    Returns:
        It, and rows/s by name where several were measured.

    Raises:
        InputError: what was asked for is not there, or did not keep the model's quality.
    """
    loaders = _candidates(model_dir, config)
    if len(loaders) == 1:
        [load] = loaders.values()
        return load(), {}
    file = measured.file_of(model_dir, config, threads_of(config))
    rates = measured.recall(file, loaders.keys())
    when = "measured before" if rates else "measured now"
    if not rates:
        # In a process of its own: what the losers load would stay in this one.
        rates = _elsewhere(model_dir, config) or measure_all(model_dir, config)
        measured.remember(file, rates)
    best = max(rates, key=rates.__getitem__)
    shown = ", ".join(f"{name} {rate:.0f}" for name, rate in sorted(rates.items()))
    log.info("engine: %s is the fastest here (rows/s, %s: %s)", best, when, shown)
    return loaders[best](), rates


def measure_all(model_dir: Path, config: EngineConfig) -> dict[str, float]:
    """Rows/s by name of all that may be used.

    Raises:
        InputError: one of them can't be loaded.
    """
    return {name: measure(load()) for name, load in _candidates(model_dir, config).items()}


def _elsewhere(model_dir: Path, config: EngineConfig) -> dict[str, float]:
    """`measure_all` in another process; nothing where that fails: then do it here, and see why."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(model_dir), config.model_dump_json()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def threads_of(config: EngineConfig) -> int:
    """Compute threads to use."""
    return config.threads or len(os.sched_getaffinity(0))


def measure(backend: Backend) -> float:
    """Rows/s with all streams busy, on rows of usual lengths."""
    rows = backend.most_rows or 8
    batches = []
    for length in _LENGTHS:
        shape = backend.shape(rows, length)
        batches.append((np.full(shape, 5, np.int64), np.ones(shape, np.int64)))
    runs = backend.streams_of()
    for ids, mask in batches:
        runs[0](ids, mask)  # the first of a shape allocates or compiles
    end = time.perf_counter() + _SECONDS

    def work(run: Callable[..., object]) -> int:
        done = 0
        while time.perf_counter() < end:
            run(*batches[done % len(batches)])
            done += 1
        return done * rows

    started = time.perf_counter()
    with ThreadPoolExecutor(len(runs)) as pool:
        futures = [pool.submit(work, run) for run in runs]
        wait(futures)
    return sum(future.result() for future in futures) / (time.perf_counter() - started)


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
    if config.backend in _EXTRAS and not installed(config.backend):
        remedy = f"it is not installed: {_EXTRAS[config.backend]}"
        return InputError(f"{asked}: {remedy}, or set engine.backend=auto")
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
    found = measure_all(Path(sys.argv[1]), EngineConfig.model_validate_json(sys.argv[2]))
    sys.stdout.write(json.dumps(found))
