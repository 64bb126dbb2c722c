"""Export a model in the configured forms, and keep the forms that pass the parity gate."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finsent.disk import check_free_space, translate_disk_errors
from finsent.errors import InputError, one_line
from finsent.evaluation.calibration import label_ids
from finsent.evaluation.metrics import Ids
from finsent.export.config import ExportConfig
from finsent.export.parity import compare, refusal
from finsent.extras import is_installed, require
from finsent.files import read_json
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.inference.export_record import (
    EXPORT_FOLDERS,
    Export,
    ExportError,
    drop_exports,
    write_exports,
)
from finsent.inference.selection.candidates import load_export, thread_count
from finsent.modeling.rows_origin import RowsOrigin

log = logging.getLogger(__name__)

_MAX_ROWS = 5000  # of the comparison; more rows would only cost time


@dataclass(frozen=True)
class Form:
    """A library and a number format to export a model to."""

    backend: str  # onnxruntime or openvino
    precision: str  # fp32 or int8

    @property
    def file(self) -> Path:
        """File of the graph, relative to the model's directory."""
        if self.backend == "openvino":
            return Path("openvino", f"model_{self.precision}.xml")
        name = "model.onnx" if self.precision == "fp32" else f"model_{self.precision}.onnx"
        return Path("onnx", name)

    def __str__(self) -> str:
        return f"{self.backend}-{self.precision}"


_ONNX_FP32 = Form("onnxruntime", "fp32")
_ONNX_INT8 = Form("onnxruntime", "int8")
_OPENVINO_INT8 = Form("openvino", "int8")


def configured_forms(config: ExportConfig) -> list[Form]:
    """Return the forms to export a model to.

    Raises:
        InputError: a configured library is not installed, or no form is configured.
    """
    if config.openvino:
        for module in ("openvino", "nncf"):
            require(module, "export.openvino=true", "set it to false")
    has_openvino = is_installed("openvino") and is_installed("nncf")
    forms = [_ONNX_FP32, _ONNX_INT8] if config.onnx else []
    if config.openvino or (config.openvino is None and has_openvino):
        forms.append(_OPENVINO_INT8)
    if not forms:
        raise InputError(
            "export.onnx=false: no format to export to. Set export.onnx or export.openvino to true."
        )
    return forms


def export_model(
    model_dir: Path,
    rows: pa.Table,
    config: ExportConfig,
    engine: EngineConfig,
    origin: RowsOrigin,
) -> list[Export]:
    """Write exports and `exports.json` into a model's directory, replacing earlier exports.

    Args:
        rows: labeled (`text`, `label`); to compare and to calibrate on.
        engine: threads and token budget of the comparison.
        origin: of the rows, for the record.

    Raises:
        InputError: see `configured_forms`; or the model's directory is damaged.
        ExportError: no export can be computed.
    """
    forms = configured_forms(config)
    reference = _Reference.of(model_dir, _sample(rows, model_dir), engine)
    with _scratch_dir(model_dir) as scratch:
        with translate_disk_errors(model_dir):
            writers = _form_writers(model_dir, reference, forms, config, scratch)
        exports = []
        for form in forms:
            log.info("export: %s", form)
            export = _export_form(form, writers[form], reference, config, scratch)
            if export is not None:
                exports.append(export)
        if not exports:
            raise ExportError(
                f"{str(model_dir)!r}: none of its exports can be computed (see the log lines "
                "above). Use engine.backend=torch, which needs no export."
            )
        _replace_exports(scratch, model_dir)
    write_exports(model_dir, exports, origin, len(reference.texts))
    return exports


@dataclass(frozen=True)
class _Reference:
    """The answers of torch in fp32 that exports are compared with."""

    engine: Engine
    threads: int
    texts: list[str]
    truth: Ids
    probabilities: npt.NDArray[np.float32]  # shape (texts, labels)

    @classmethod
    def of(cls, model_dir: Path, rows: pa.Table, config: EngineConfig) -> _Reference:
        """Compute the answers to labeled rows.

        Raises:
            InputError: the model's answers are not numbers.
        """
        engine = Engine(model_dir, config.replaced(backend="torch", precision="fp32"))
        texts = rows["text"].to_pylist()
        probabilities = engine.probabilities(texts)
        engine.check_numbers(probabilities)
        return cls(engine, thread_count(config), texts, label_ids(rows), probabilities)


def _sample(rows: pa.Table, model_dir: Path) -> pa.Table:
    """Return at most `_MAX_ROWS` rows.

    Raises:
        InputError: the table is empty.
    """
    if not len(rows):
        raise InputError(
            f"{str(model_dir)!r}: no labeled rows on which to compare an export with the model. "
            "Add labeled rows."
        )
    if len(rows) <= _MAX_ROWS:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), _MAX_ROWS, replace=False)
    return rows.take(pa.array(np.sort(chosen)))


def _export_form(
    form: Form,
    write: Callable[[Path], object],
    reference: _Reference,
    config: ExportConfig,
    scratch: Path,
) -> Export | None:
    """Write one form and judge it; a refused form is deleted.

    Returns:
        None where the form cannot be written, loaded or computed, which is logged.
    """
    file, model = scratch / form.file, reference.engine
    try:
        with _as_export_error(), translate_disk_errors(model.model_dir):
            file.parent.mkdir(exist_ok=True)
            write(file)
            backend = load_export(file, form.backend, form.precision, reference.threads)
            exported = Engine(model.model_dir, model.config, backend)
            probabilities = exported.probabilities(reference.texts)
    except ExportError as error:
        log.warning("export: without %s: %s", form, error)
        _delete(file)
        return None
    parity = compare(reference.probabilities, probabilities, reference.truth, model.threshold)
    refused = refusal(parity, form.precision, config)
    size = sum(path.stat().st_size for path in _files_of(file))
    if refused:
        log.warning("export: %s is refused: %s", form, refused)
        _delete(file)
    return Export(
        backend=form.backend,
        precision=form.precision,
        file=None if refused else form.file.as_posix(),
        bytes=size,
        max_difference=parity.max_difference,
        same_labels=parity.same_labels,
        macro_f1=parity.macro_f1,
        macro_f1_exact=parity.macro_f1_exact,
        refused=refused,
        seen=parity.changes,
    )


@contextmanager
def _as_export_error() -> Iterator[None]:
    """Raise ExportError where a library cannot write, load or compute a graph."""
    try:
        yield
    except (OSError, MemoryError, InputError):  # a full disk; a package that is not installed
        raise
    except Exception as error:  # the libraries share no error type
        if type(error).__name__ == "OutOfMemoryError":  # of torch
            raise
        problem = one_line(error)
        raise ExportError(f"{type(error).__name__}: {problem}") from error


def _files_of(graph: Path) -> list[Path]:
    """Return the graph and the files of its weights."""
    return [*graph.parent.glob(f"{graph.stem}.*")]


def _delete(graph: Path) -> None:
    for file in _files_of(graph):
        file.unlink()


def _form_writers(
    model_dir: Path,
    reference: _Reference,
    forms: list[Form],
    config: ExportConfig,
    scratch: Path,
) -> dict[Form, Callable[[Path], object]]:
    """Trace the model, and return a function per form that writes it to a file."""
    # Jobs that only check the settings import this module; torch and transformers cost 4 s.
    from finsent.export.onnx import write_fused_onnx, write_int8_onnx, write_onnx
    from finsent.export.openvino import write_int8_openvino

    raw, fused = scratch / "raw.onnx", scratch / "fused.onnx"
    write_onnx(model_dir, raw)
    if any(form.backend == "onnxruntime" for form in forms):
        # ONNX Runtime writes a copy to TMPDIR, and does not notice when the disk is full.
        check_free_space(Path(tempfile.gettempdir()), raw.stat().st_size, "TMPDIR")
        write_fused_onnx(raw, read_json(model_dir / "config.json"), fused)
    order = np.random.default_rng(0).permutation(len(reference.texts))
    texts = [reference.texts[i] for i in order[: config.calibration_rows]]
    return {
        _ONNX_FP32: lambda out: shutil.copyfile(fused, out),
        _ONNX_INT8: lambda out: write_int8_onnx(fused, out),
        _OPENVINO_INT8: lambda out: write_int8_openvino(
            raw, [text.ids for text in reference.engine.encode(texts)], out
        ),
    }


@contextmanager
def _scratch_dir(model_dir: Path) -> Iterator[Path]:
    """Yield a directory on the model's file system, hidden from readers of the model."""
    with (
        translate_disk_errors(model_dir),
        tempfile.TemporaryDirectory(dir=model_dir.parent, prefix=".staging-export-") as name,
    ):
        yield Path(name)


def _replace_exports(scratch: Path, model_dir: Path) -> None:
    """Replace the folders of earlier exports; no reader uses folders without a record."""
    drop_exports(model_dir)
    for name in EXPORT_FOLDERS:
        if (scratch / name).is_dir() and any((scratch / name).iterdir()):
            (scratch / name).rename(model_dir / name)
