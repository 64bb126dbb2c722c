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
WEIGHTS = "model.safetensors"
# Class of a tokenizer that is tokenizer.json unchanged: in transformers 4; in 5, which has both.
PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
INPUTS = ("input_ids", "attention_mask")  # all that a model gets
# Metadata of the weights' file: the temperature that the output layer was divided by. In the same
# file as the weights, so that an interrupted calibration cannot separate the two.
FOLDED = "finsent.folded_temperature"
REMEDY = "the directory is damaged: train again, or use another model"
_NEEDED = ("config.json", WEIGHTS, "tokenizer.json", PROVENANCE)


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
    folded: float = 1.0  # the weights of the output layer are divided by it already
    threshold: float | None = None  # answers below this confidence should be withheld
    record: dict[str, Any] = field(default_factory=dict)  # the whole file; empty: there is none
    biases: tuple[float, ...] | None = None  # added to the divided logits, one per label
    name: str | None = None  # of the calibration for a domain; None: the model's own

    @property
    def fitted(self) -> float:
        """The temperature that was fitted: what divides the logits of training in all."""
        return self.temperature * self.folded


def read_calibration(path: Path) -> Calibration:
    """A model's calibration; one that changes nothing when its directory has none.

    Raises:
        InputError: the file is damaged, or belongs to other weights.
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
    folded = float(record.get("folded_temperature", 1.0))
    if "folded_temperature" in record and folded != folded_temperature(path):
        raise InputError(
            f"{file}: belongs to other weights: those of {WEIGHTS} are divided by the temperature "
            f"{folded_temperature(path)}, not {folded}; delete it to go on uncalibrated, or train "
            "the model again"
        )
    return Calibration(
        float(record["temperature"]), folded, record["abstention"]["threshold"], dict(record)
    )


def folded_temperature(path: Path) -> float:
    """Return what the weights of a model's output layer are divided by; 1: they are as trained.

    Raises:
        InputError: the weights' file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path / WEIGHTS, "np") as file:  # "np": without torch
            return float((file.metadata() or {}).get(FOLDED, 1.0))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{str(path)!r}: {WEIGHTS} cannot be loaded ({error}); {REMEDY}") from None


def _calibration_problem(record: Any) -> str:
    if not isinstance(record, dict) or record.get("schema_version") != CALIBRATION_SCHEMA:
        return f"not a calibration of schema {CALIBRATION_SCHEMA}"
    temperature, rule = record.get("temperature"), record.get("abstention")
    if not _is_number(temperature) or temperature <= 0:
        return f"temperature={temperature!r} is not a number above 0"
    folded = record.get("folded_temperature", 1.0)
    if not _is_number(folded) or folded <= 0:
        return f"folded_temperature={folded!r} is not a number above 0"
    threshold = rule.get("threshold", "missing") if isinstance(rule, dict) else "missing"
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold <= 1):
        return f"abstention.threshold={threshold!r} is neither null nor a number from 0 to 1"
    return ""


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
