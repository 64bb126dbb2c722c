"""Export a model to all that was asked for, and keep what answers as the model does."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finsent.disk import check_free_space, translate_disk_errors
from finsent.errors import InputError, one_line
from finsent.evaluation.calibration import label_ids
from finsent.export.parity import compare, refusal
from finsent.extras import is_installed, require
from finsent.files import read_json
from finsent.inference.choose import load_export, threads_of
from finsent.inference.config import EngineConfig, ExportConfig
from finsent.inference.engine import Engine
from finsent.inference.exports import (
    EXPORT_FOLDERS,
    Export,
    ExportError,
    drop_exports,
    write_exports,
)

log = logging.getLogger(__name__)

_MOST_ROWS = 5000  # of the comparison; more would only cost time


def wanted(config: ExportConfig) -> list[tuple[str, str]]:
    """Backends and precisions to export to.

    Raises:
        InputError: something is asked for that is not installed, or nothing is.
    """
    openvino = config.openvino
    if openvino:
        for module in ("openvino", "nncf"):
            require(module, "export.openvino=true", "set it to false")
    has_openvino = is_installed("openvino") and is_installed("nncf")
    found = [("onnxruntime", "fp32"), ("onnxruntime", "int8")] if config.onnx else []
    found += [("openvino", "int8")] if openvino or (openvino is None and has_openvino) else []
    if not found:
        raise InputError("export.onnx=false: then nothing is left to export to; set one to true")
    return found


def export(
    model_dir: Path,
    rows: pa.Table,
    config: ExportConfig,
    engine: EngineConfig,
    origin: dict[str, Any],
) -> list[Export]:
    """Write exports and `exports.json` into a model's directory; the old ones go.

    Args:
        rows: labeled (`text`, `label`); compared and calibrated on.
        engine: threads and token budget of the comparison.
        origin: recorded: which rows these are.

    Raises:
        InputError: see `wanted`; or the model's directory is damaged.
    """
    forms = wanted(config)
    if len(rows) > _MOST_ROWS:
        chosen = np.random.default_rng(0).choice(len(rows), _MOST_ROWS, replace=False)
        rows = rows.take(pa.array(np.sort(chosen)))
    if not len(rows):
        raise InputError(
            f"{str(model_dir)!r}: no rows to compare exports with the model on; add labeled rows"
        )
    texts, truth = rows["text"].to_pylist(), label_ids(rows)
    exact_config = engine.replaced(backend="torch", precision="fp32")
    exact_engine = Engine(model_dir, exact_config)
    exact = exact_engine.probabilities(texts)
    if not np.isfinite(exact).all():
        raise InputError(
            f"{str(model_dir)!r}: its answers are not numbers; the weights are damaged: train again"
        )
    with _scratch(model_dir) as scratch:
        with translate_disk_errors(model_dir):
            steps = _steps(model_dir, exact_engine, texts, forms, config, scratch)
        found = []
        for backend, precision in forms:
            file = scratch / _file(backend, precision)
            log.info("export: %s-%s", backend, precision)
            try:
                with _one_kind_of_error(), translate_disk_errors(model_dir):
                    file.parent.mkdir(exist_ok=True)
                    steps[backend, precision](file)
                    loaded = load_export(file, backend, precision, threads_of(engine))
                    answers = Engine(model_dir, exact_config, loaded).probabilities(texts)
            except ExportError as error:
                log.warning("export: without %s-%s: %s", backend, precision, error)
                _remove(file)
                continue
            parity = compare(exact, answers, truth, exact_engine.threshold)
            refused = refusal(parity, precision, config)
            if refused:
                log.warning("export: %s-%s is refused: %s", backend, precision, refused)
            found.append(
                Export(
                    backend,
                    precision,
                    None if refused else _file(backend, precision).as_posix(),
                    sum(piece.stat().st_size for piece in _pieces(file)),
                    **vars(parity),
                    refused=refused,
                )
            )
            if refused:
                _remove(file)
        if not found:
            raise ExportError(
                f"{str(model_dir)!r}: none of its exports can be computed, the lines above say why;"
                " use engine.backend=torch, which needs no export"
            )
        _place(scratch, model_dir)
    write_exports(model_dir, found, {**origin, "rows": len(rows)})
    return found


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Raise ExportError where a library cannot write, load or compute a graph."""
    try:
        yield
    except (OSError, MemoryError, InputError):  # a full disk; a package that is missing
        raise
    except Exception as error:  # each library raises errors of its own
        if type(error).__name__ == "OutOfMemoryError":  # of torch
            raise
        problem = one_line(error)
        raise ExportError(f"{type(error).__name__}: {problem}") from error


def _pieces(file: Path) -> list[Path]:
    return [*file.parent.glob(f"{file.stem}.*")]


def _remove(file: Path) -> None:
    for piece in _pieces(file):
        piece.unlink()


def _file(backend: str, precision: str) -> Path:
    if backend == "openvino":
        return Path("openvino", f"model_{precision}.xml")
    return Path("onnx", "model.onnx" if precision == "fp32" else f"model_{precision}.onnx")


def _steps(
    model_dir: Path,
    engine: Engine,
    texts: list[str],
    forms: list[tuple[str, str]],
    config: ExportConfig,
    scratch: Path,
) -> dict[tuple[str, str], Callable[[Path], object]]:
    """Trace the model, and return what writes each form of it."""
    from finsent.export import graphs as to

    raw, fused = scratch / "raw.onnx", scratch / "fused.onnx"
    to.export_onnx(model_dir, raw)
    if any(backend == "onnxruntime" for backend, _ in forms):
        # ONNX Runtime writes a copy there, and does not notice when the disk is full.
        check_free_space(Path(tempfile.gettempdir()), raw.stat().st_size, "TMPDIR")
        to.fuse(raw, read_json(model_dir / "config.json"), fused)
    calibrated_on = np.random.default_rng(0).permutation(len(texts))[: config.calibration_rows]
    return {
        ("onnxruntime", "fp32"): lambda out: shutil.copyfile(fused, out),
        ("onnxruntime", "int8"): lambda out: to.quantize_onnx(fused, out),
        ("openvino", "int8"): lambda out: to.quantize_openvino(
            raw, [one.ids for one in engine.encode([texts[i] for i in calibrated_on])], out
        ),
    }


@contextmanager
def _scratch(model_dir: Path) -> Iterator[Path]:
    """A directory on the model's own file system, hidden from whoever copies the model."""
    with (
        translate_disk_errors(model_dir),
        tempfile.TemporaryDirectory(dir=model_dir.parent, prefix=".staging-export-") as name,
    ):
        yield Path(name)


def _place(scratch: Path, model_dir: Path) -> None:
    """Put new folders in the place of the old; without a record meanwhile, nothing uses either."""
    drop_exports(model_dir)
    for name in EXPORT_FOLDERS:
        if (scratch / name).is_dir() and any((scratch / name).iterdir()):
            (scratch / name).rename(model_dir / name)
