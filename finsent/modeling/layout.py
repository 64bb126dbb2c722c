"""What a trained classifier's directory holds; readable without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from finsent.errors import InputError
from finsent.files import read_json
from finsent.labels import check_labels
from finsent.modeling.label_map import LabelMap, read_label_map

PROVENANCE = "provenance.json"
CALIBRATION = "calibration.json"
CALIBRATION_SCHEMA = 1
REMEDY = "the directory is damaged: train again, or use another model"
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json", PROVENANCE)


def check_model_dir(path: Path) -> LabelMap | None:
    """Refuse what is not a complete classifier with our labels, or with a map onto them.

    Returns:
        The map; None where the model answers our labels itself.

    Raises:
        InputError: a file is missing, or the labels are others.
    """
    for name in _NEEDED:
        if not (path / name).is_file():
            raise InputError(
                f"{str(path)!r}: {name} is missing; not a model that finsent trained or adopted"
            )
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise InputError(f"{path / 'config.json'}: not a model's config; {REMEDY}")
    label_map = read_label_map(path)
    if label_map is None:
        check_labels(config.get("id2label") or {}, str(path / "config.json"))
    return label_map


def read_provenance(path: Path) -> dict[str, Any]:
    """Where a model came from, and what inference has to know.

    Raises:
        InputError: the record is missing or damaged.
    """
    provenance = read_json(path / PROVENANCE)
    if not isinstance(provenance, dict) or "max_length" not in provenance:
        raise InputError(f"{path / PROVENANCE}: has no max_length; {REMEDY}")
    return provenance


@dataclass(frozen=True)
class Calibration:
    """What turns a model's logits into probabilities and decisions."""

    temperature: float = 1.0  # logits are divided by it
    threshold: float | None = None  # answers below this confidence should be withheld
    record: dict[str, Any] = field(default_factory=dict)  # the whole file; empty: there is none


def read_calibration(path: Path) -> Calibration:
    """A model's calibration; one that changes nothing when its directory has none.

    Raises:
        InputError: the file is damaged.
    """
    file = path / CALIBRATION
    if not file.is_file():
        return Calibration()
    record = read_json(file)
    problem = _calibration_problem(record)
    if problem:
        raise InputError(
            f"{file}: {problem}; delete it to go on uncalibrated, or train the model again"
        )
    return Calibration(
        float(record["temperature"]), record["abstention"]["threshold"], dict(record)
    )


def _calibration_problem(record: Any) -> str:
    if not isinstance(record, dict) or record.get("schema_version") != CALIBRATION_SCHEMA:
        return f"not a calibration of schema {CALIBRATION_SCHEMA}"
    temperature, rule = record.get("temperature"), record.get("abstention")
    if not _is_number(temperature) or temperature <= 0:
        return f"temperature={temperature!r} is not a number above 0"
    threshold = rule.get("threshold", "missing") if isinstance(rule, dict) else "missing"
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold <= 1):
        return f"abstention.threshold={threshold!r} is neither null nor a number from 0 to 1"
    return ""


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
