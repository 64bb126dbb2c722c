"""The backends that a model and the settings allow, and how to load them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from finsent.errors import InputError
from finsent.extras import EXTRAS, is_installed, missing_extra, require
from finsent.inference.backends import Backend
from finsent.inference.config import EngineConfig
from finsent.inference.export_record import Export, read_exports

Loader = Callable[[], Backend]


def thread_count(config: EngineConfig) -> int:
    """Return the number of compute threads."""
    return config.threads or len(os.sched_getaffinity(0))


def candidate_loaders(model_dir: Path, config: EngineConfig) -> dict[str, Loader]:
    """Return a loader for each backend that the settings allow, by the backend's name.

    Raises:
        InputError: no backend fits the settings.
    """
    threads = thread_count(config)
    exports = read_exports(model_dir) if config.backend != "torch" else []
    loaders: dict[str, Loader] = {}
    for export in exports:
        is_backend = config.backend in ("auto", export.backend)
        is_precision = config.precision in ("auto", export.precision)
        if is_backend and is_precision and is_installed(export.backend):
            file = model_dir / str(export.file)
            loaders[export.name] = partial(
                load_export, file, export.backend, export.precision, threads
            )
    # On a CPU an exported graph is always faster, and torch costs seconds and memory to import.
    is_wanted = config.backend == "auto" and (not loaders or _has_gpu())
    if config.backend == "torch" or (is_wanted and is_installed("torch")):
        precision = _torch_precision(config)
        if precision is not None:
            require("torch", _named(config), "set engine.backend=auto and use an exported model")
            loaders[f"torch-{precision}"] = partial(_load_torch, model_dir, precision, config)
    if not loaders:
        raise _no_candidate(model_dir, config, exports)
    return loaders


def _torch_precision(config: EngineConfig) -> str | None:
    # bf16 only where it is configured: the parity gate does not measure it.
    if config.precision == "bf16":
        return "bf16"
    return "fp32" if config.precision in ("auto", "fp32") else None


def _has_gpu() -> bool:
    # The driver's files are read, as importing torch would cost seconds.
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def _named(config: EngineConfig) -> str:
    return f"engine.backend={config.backend!r}, engine.precision={config.precision!r}"


def _no_candidate(model_dir: Path, config: EngineConfig, exports: list[Export]) -> InputError:
    if config.backend in EXTRAS and not is_installed(config.backend):
        return missing_extra(config.backend, _named(config), "set engine.backend=auto")
    usable = ", ".join(export.name for export in exports) or "nothing"
    if config.backend == "auto" and not is_installed("torch"):
        return InputError(
            f"{_named(config)}: {str(model_dir)!r} is exported to {usable}, and neither torch nor "
            "the library of an export is installed. Export it with `python -m ray_jobs.export` and "
            "publish it, or run pip install 'finsent[platform]'."
        )
    return InputError(
        f"{_named(config)}: {str(model_dir)!r} is exported to {usable} for use there. Export it "
        "with `python -m ray_jobs.export` and publish it, or set both to auto"
    )


def load_export(file: Path, backend: str, precision: str, threads: int) -> Backend:
    """Load the backend of an exported file."""
    if backend == "openvino":
        # An extra, and 0.3 s. A process needs one of the two libraries.
        from finsent.inference.backends.openvino import OpenvinoBackend

        return OpenvinoBackend(file, precision, threads)
    from finsent.inference.backends.onnx import OnnxBackend  # 0.2 s; as above

    return OnnxBackend(file, precision, threads)


def _load_torch(model_dir: Path, precision: str, config: EngineConfig) -> Backend:
    # torch and transformers cost 4 s to import; exports need neither.
    from finsent.inference.backends.torch import TorchBackend

    return TorchBackend(model_dir, precision, thread_count(config), config.compile)
