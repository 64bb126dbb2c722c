"""A calibration for a domain, applied after a model version's own calibration.

With z the logits of the version's calibrated probabilities, the probabilities are
softmax(z / temperature + biases). A bias changes labels, as a domain has other shares of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finsent.files import digest
from finsent.labels import LABELS
from finsent.modeling.calibration import Calibration, CalibrationFit
from finsent.modeling.domain_record import DomainMetrics, DomainRecord, ExportAnswers, Figure

_TOLERANCE = 1e-6  # of the sum of biases
# A threshold that no confidence reaches: the least number above 1 in fp32, as softmax returns 1 for
# a saturated row. Records and reports have 1 and the reason.
UNREACHABLE_THRESHOLD = 1 + 2.0**-23


class DomainContent(DomainRecord):
    """The fields that decide the id of a calibration."""

    name: str
    model_version: str  # a digest of the model's files
    temperature: Annotated[float, Field(gt=0)]
    biases: dict[str, float]  # by label; they sum to 0
    threshold: Annotated[float, Field(ge=0, le=1)]
    threshold_reason: str | None  # why it is 1: the model abstains from every row
    wanted_accuracy: float  # among the answered rows
    sources: tuple[str, ...]
    rows: int
    texts: int  # rows, where near copies count as one
    rows_by_label: dict[str, int]
    rows_digest: str
    keys: tuple[str, ...]  # of the rows: hashes of their texts
    folds: int
    before: DomainMetrics  # the version's own calibration on the same rows
    after: DomainMetrics  # cross-validated
    log_loss_difference: Figure  # after - before
    fitted_with: str  # form of the model, e.g. torch-fp32
    exports: dict[str, ExportAnswers]  # by form; the usable exports of the version
    refusal: str | None  # the gate's reason against it, where publishing was forced

    @model_validator(mode="after")
    def _fits_labels(self) -> Self:
        if list(self.biases) != list(LABELS):
            raise ValueError(f"biases have the labels {list(self.biases)}, not {list(LABELS)}")
        if abs(math.fsum(self.biases.values())) > _TOLERANCE:
            raise ValueError(f"biases={self.biases} do not sum to 0")
        return self

    def digest(self) -> str:
        """Return the id of this content."""
        fields = set(DomainContent.model_fields)
        return digest(self.model_dump(mode="json", include=fields))[:12]


class DomainCalibration(DomainContent):
    """A calibration of a model version that can be published."""

    schema_version: Literal[1] = 1
    id: str
    created: str  # ISO 8601
    previous: tuple[str, ...] = ()  # ids of the calibrations that had the name before

    @model_validator(mode="after")
    def _has_own_id(self) -> Self:
        if self.id != self.digest():
            raise ValueError(f"id={self.id!r} is not the digest of the content")
        return self

    @classmethod
    def of(cls, content: DomainContent) -> DomainCalibration:
        """Return a new calibration with this content."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(id=content.digest(), created=created, **content.model_dump())

    def on(self, own: Calibration) -> Calibration:
        """Return a version's own calibration followed by this calibration.

        softmax ignores a number that is added to all logits of a row. Dividing the logits by both
        temperatures therefore equals dividing the logits of the calibrated probabilities by the
        temperature of the domain.
        """
        return replace(
            own,
            temperature=own.temperature * self.temperature,
            threshold=self.threshold if self.threshold_reason is None else UNREACHABLE_THRESHOLD,
            fit=self._fit(),
            biases=tuple(self.biases.values()),
            name=self.name,
        )

    def _fit(self) -> CalibrationFit:
        return CalibrationFit(
            id=self.id,
            sources=self.sources,
            rows=self.rows,
            ece_before=self.before.ece.value,
            ece_after=self.after.ece.value,
            wanted_accuracy=self.wanted_accuracy,
            threshold_reason=self.threshold_reason,
        )
