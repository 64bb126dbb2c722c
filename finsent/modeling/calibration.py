"""The calibration of a model: its record on disk, and the numbers that the engine applies.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from safetensors import SafetensorError, safe_open

from finsent.errors import InputError
from finsent.modeling.model_dir import CALIBRATION, REMEDY, WEIGHTS
from finsent.modeling.risk_coverage import CurvePoint
from finsent.records import SparseRecord

# Metadata key of the weights' file: the temperature that the output layer is divided by. In the
# same file as the weights, so that an interrupted calibration cannot separate the two.
FOLDED_KEY = "finsent.folded_temperature"

_Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]


class AbstentionRecord(SparseRecord):
    """The threshold below which a model abstains, and the rows that it was chosen on."""

    wanted_accuracy: float | None = None  # among the answered rows
    threshold: _Share | None  # None: the model never abstains
    reason: str | None = None  # why there is no threshold
    coverage: float | None = None  # share of rows answered
    accuracy: float | None = None  # among the answered rows
    curve: tuple[CurvePoint, ...] | None = None


class CalibrationRecord(SparseRecord):
    """The content of `calibration.json`."""

    dataset_version: str | None = None
    split: str | None = None
    sources: tuple[str, ...] | None = None  # of an adopted model's labeled rows
    schema_version: Literal[1]
    temperature: _Temperature  # what remains to divide the logits by
    reason: str | None = None  # why the temperature is 1
    rows: int | None = None
    log_loss_before: float | None = None
    log_loss_after: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    abstention: AbstentionRecord
    folded_temperature: _Temperature | None = None  # the weights are divided by it

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged calibration."""
        return "Delete the file to use the model uncalibrated, or train the model again."


@dataclass(frozen=True)
class CalibrationFit:
    """The rows that a calibration was fitted on, and its effect on them."""

    id: str | None = None  # of a calibration for a domain
    dataset_version: str | None = None
    split: str | None = None
    sources: tuple[str, ...] | None = None
    rows: int | None = None
    reason: str | None = None  # why the temperature is 1
    ece_before: float | None = None
    ece_after: float | None = None
    wanted_accuracy: float | None = None  # that the threshold was chosen for
    threshold_reason: str | None = None  # why there is no threshold, or one that none reaches


@dataclass(frozen=True)
class Calibration:
    """Temperature, biases and threshold that turn a model's logits into decisions."""

    temperature: float = 1.0  # divides the logits
    folded: float = 1.0  # the weights of the output layer are divided by it already
    threshold: float | None = None  # the model abstains below this confidence; None: never
    fit: CalibrationFit | None = None  # None: the model was never calibrated
    biases: tuple[float, ...] | None = None  # added to the divided logits, one per label
    name: str | None = None  # of the calibration for a domain; None: the model's own

    @property
    def fitted(self) -> float:
        """The fitted temperature: the complete divisor of the logits of training."""
        return self.temperature * self.folded


def read_calibration_record(model_dir: Path) -> CalibrationRecord | None:
    """Return the content of a model's `calibration.json`; None: the file does not exist.

    Raises:
        InputError: the file is damaged, or belongs to other weights.
    """
    file = model_dir / CALIBRATION
    if not file.is_file():
        return None
    record = CalibrationRecord.read(file)
    if record.folded_temperature is None:  # calibrated before temperatures were folded
        return record
    folded = folded_temperature(model_dir)
    if record.folded_temperature != folded:
        raise InputError(
            f"{file}: belongs to other weights: those of {WEIGHTS} are divided by the temperature "
            f"{folded}, not {record.folded_temperature}. {record.remedy()}"
        )
    return record


def read_calibration(model_dir: Path) -> Calibration:
    """Return a model's own calibration; one that changes nothing where the model has none.

    Raises:
        InputError: the file is damaged, or belongs to other weights.
    """
    record = read_calibration_record(model_dir)
    if record is None:
        return Calibration()
    rule = record.abstention
    return Calibration(
        temperature=record.temperature,
        folded=1.0 if record.folded_temperature is None else record.folded_temperature,
        threshold=rule.threshold,
        fit=CalibrationFit(
            dataset_version=record.dataset_version,
            split=record.split,
            sources=record.sources,
            rows=record.rows,
            reason=record.reason,
            ece_before=record.ece_before,
            ece_after=record.ece_after,
            wanted_accuracy=rule.wanted_accuracy,
            threshold_reason=rule.reason,
        ),
    )


def folded_temperature(model_dir: Path) -> float:
    """Return the divisor of a model's output layer; 1: the weights are as trained.

    Raises:
        InputError: the weights' file is damaged.
    """
    try:
        with safe_open(model_dir / WEIGHTS, "np") as file:  # "np": without torch
            return float((file.metadata() or {}).get(FOLDED_KEY, 1.0))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{str(model_dir)!r}: {WEIGHTS} cannot be loaded ({error}). {REMEDY}"
        ) from None
