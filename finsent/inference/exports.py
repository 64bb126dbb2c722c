"""What a model was exported to, and what that cost in quality: its `exports.json`."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.evaluation.noninferiority import Estimate
from finsent.extras import is_installed
from finsent.files import read_json, sha256_file, write_json
from finsent.modeling.label_map import LABEL_MAP
from finsent.modeling.layout import CALIBRATION, PROVENANCE, WEIGHTS

EXPORTS = "exports.json"
EXPORT_FOLDERS = ("onnx", "openvino")
SCHEMA = 1


class ExportError(InputError):
    """An architecture has no exported form."""


@dataclass(frozen=True)
class Seen:
    """What users see of an export, compared with torch in fp32; the bounds are of 95 %."""

    rows: int
    same_labels: Estimate  # share of the rows
    same_abstentions: Estimate | None  # share of the rows; None: the model never abstains
    score_change: Estimate  # mean absolute change of the confidence
    accuracy: Estimate  # change
    macro_f1: Estimate  # change, over the labels that the rows have
    worse: str | None  # how the rows show that its labels are worse; None: they do not

    @classmethod
    def of(cls, record: dict[str, Any]) -> Seen:
        """Read what `asdict` wrote."""
        figures: dict[str, Any] = {
            key: Estimate(**value) if isinstance(value, dict) else value
            for key, value in record.items()
        }
        return cls(**figures)


@dataclass(frozen=True)
class Export:
    """One exported form of a model, and how it compares with torch in fp32."""

    backend: str  # onnxruntime or openvino
    precision: str  # fp32 or int8
    file: str | None  # relative to the model's directory; None: refused, and not kept
    bytes: int
    max_difference: float  # of any probability
    same_labels: float  # share of the rows
    macro_f1: float
    macro_f1_exact: float  # of torch in fp32, on the same rows
    refused: str | None = None  # why it may not be used
    seen: Seen | None = None  # None in records of earlier releases

    @classmethod
    def of(cls, record: dict[str, Any]) -> Export:
        """Read what `asdict` wrote, now or in an earlier release."""
        seen = record.get("seen")
        return cls(**{**record, "seen": Seen.of(seen) if seen else None})

    @property
    def name(self) -> str:
        """Library and precision, e.g. onnxruntime-int8."""
        return f"{self.backend}-{self.precision}"

    def files(self, model_dir: Path) -> list[Path]:
        """Its files: OpenVINO keeps weights beside the graph."""
        if self.file is None:
            return []
        path = model_dir / self.file
        return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def write_exports(model_dir: Path, found: list[Export], origin: dict[str, Any]) -> dict[str, Any]:
    """Write the record.

    Args:
        origin: which rows were compared.
    """
    record = {
        "schema_version": SCHEMA,
        "weights_sha256": sha256_file(model_dir / WEIGHTS),
        **origin,
        "exports": [asdict(one) for one in found],
    }
    write_json(model_dir / EXPORTS, record)
    return record


def read_exports(model_dir: Path) -> list[Export]:
    """Exports that may be used; none where the model was never exported.

    Raises:
        InputError: the record is damaged, a file is missing, or they are of other weights.
    """
    path = model_dir / EXPORTS
    if not path.is_file():
        return []
    record = read_json(path)
    remedy = f"export the model again, or delete {str(path)!r}"
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA:
        raise InputError(f"{path}: not a record of exports of schema {SCHEMA}; {remedy}")
    if record.get("weights_sha256") != sha256_file(model_dir / WEIGHTS):
        raise InputError(f"{path}: the exports are of other weights than {WEIGHTS}; {remedy}")
    try:
        found = [Export.of(one) for one in record["exports"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); {remedy}") from None
    usable = [one for one in found if one.file is not None and one.refused is None]
    for one in usable:
        for file in one.files(model_dir):
            if not file.is_file():
                raise InputError(f"{path}: {file.name} is missing; {remedy}")
    return usable


def drop_exports(model_dir: Path) -> bool:
    """Remove a model's exports, the record first; returns whether there were any."""
    had = (model_dir / EXPORTS).is_file()
    (model_dir / EXPORTS).unlink(missing_ok=True)
    for name in EXPORT_FOLDERS:
        shutil.rmtree(model_dir / name, ignore_errors=True)
    return had


def installed(backend: str) -> bool:
    """Whether a backend's library is there."""
    return is_installed(backend)


def fingerprint(model_dir: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model that decides its answers, by the file's name."""
    names = (WEIGHTS, "config.json", "tokenizer.json", LABEL_MAP, PROVENANCE, CALIBRATION, EXPORTS)
    paths = [path for name in names if (path := model_dir / name).is_file()]
    return {path.name: sha256_file(path) for path in paths}
