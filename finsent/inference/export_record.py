"""The record of a model's exports, and the difference of each from torch in fp32."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from finsent.errors import InputError
from finsent.estimates import Estimate
from finsent.files import sha256_file
from finsent.modeling.model_dir import EXPORTS, WEIGHTS
from finsent.modeling.rows_origin import RowsOrigin
from finsent.records import Record, SparseRecord

EXPORT_FOLDERS = ("onnx", "openvino")


class ExportError(InputError):
    """An architecture has no exported form."""


class AnswerChanges(Record):
    """Changes that users notice, compared with torch in fp32; bounds hold with 95 % confidence."""

    rows: int
    same_labels: Estimate  # share of the rows
    same_abstentions: Estimate | None  # share of the rows; None: the model never abstains
    score_change: Estimate  # mean absolute change of the confidence
    accuracy: Estimate  # change
    macro_f1: Estimate  # change, over the labels that the rows have
    worse: str | None  # how the rows show that its labels are worse; None: they do not


class Export(Record):
    """One exported form of a model, and its difference from torch in fp32."""

    backend: str  # onnxruntime or openvino
    precision: str  # fp32 or int8
    file: str | None  # relative to the model's directory; None: refused and deleted
    bytes: int
    max_difference: float  # of any probability
    same_labels: float  # share of the rows
    macro_f1: float
    macro_f1_exact: float  # of torch in fp32, on the same rows
    refused: str | None = None  # reason against its use
    seen: AnswerChanges | None = None  # None: written before this was measured

    @property
    def name(self) -> str:
        """Library and precision, e.g. onnxruntime-int8."""
        return f"{self.backend}-{self.precision}"

    def files(self, model_dir: Path) -> list[Path]:
        """Return the files of the export; OpenVINO stores weights next to the graph."""
        if self.file is None:
            return []
        path = model_dir / self.file
        return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


class ExportsRecord(SparseRecord):
    """The content of `exports.json`."""

    schema_version: Literal[1]
    weights_sha256: str
    dataset_version: str | None = None  # of the compared rows
    split: str | None = None
    sources: tuple[str, ...] | None = None
    rows: int  # that exports were compared with the model on
    exports: tuple[Export, ...]

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged record of exports."""
        return "Export the model again, or delete the file."


def write_exports(
    model_dir: Path, exports: Sequence[Export], origin: RowsOrigin, rows: int
) -> None:
    """Write `exports.json`.

    Args:
        origin: of the compared rows.
        rows: number of compared rows.
    """
    record = ExportsRecord(
        schema_version=1,
        weights_sha256=sha256_file(model_dir / WEIGHTS),
        **origin,
        rows=rows,
        exports=tuple(exports),
    )
    record.write(model_dir / EXPORTS)


def read_exports(model_dir: Path) -> list[Export]:
    """Return the exports that may be used; empty where the model was never exported.

    Raises:
        InputError: the record is damaged, a file is missing, or the exports are of other weights.
    """
    path = model_dir / EXPORTS
    if not path.is_file():
        return []
    record = ExportsRecord.read(path)
    if record.weights_sha256 != sha256_file(model_dir / WEIGHTS):
        raise InputError(
            f"{path}: the exports are of other weights than {WEIGHTS}. {record.remedy()}"
        )
    usable = [e for e in record.exports if e.file is not None and e.refused is None]
    for export in usable:
        for file in export.files(model_dir):
            if not file.is_file():
                raise InputError(f"{path}: {file.name} is missing. {record.remedy()}")
    return usable


def drop_exports(model_dir: Path) -> bool:
    """Delete a model's exports, the record first, and return whether the model had any."""
    had_exports = (model_dir / EXPORTS).is_file()
    (model_dir / EXPORTS).unlink(missing_ok=True)
    for name in EXPORT_FOLDERS:
        shutil.rmtree(model_dir / name, ignore_errors=True)
    return had_exports
