"""Records of scored files and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from finsent.records import Record, SparseRecord

if TYPE_CHECKING:
    from finsent.inference.engine import Prediction


class Counts(Record):
    """What a scored file holds."""

    rows: int = 0
    truncated: int = 0  # rows whose text was cut
    labels: dict[str, int] = Field(default_factory=dict)  # rows by label
    faults: dict[str, int] = Field(default_factory=dict)  # rows that were not scored, by reason


class ScoredFile(Counts):
    """A file that is scored, or being scored."""

    input: str  # origin of the input file
    identity: str  # digest of all that decides the answers
    backend: str
    finished: bool

    def finish(self, counts: Counts) -> ScoredFile:
        """Return the record of the complete file."""
        values = {**self.model_dump(), **counts.model_dump(), "finished": True}
        return ScoredFile.model_validate(values)


class TextPrediction(SparseRecord):
    """A text with the answer for it."""

    row: int | None = None  # number of its line or record in the input; None: an argument
    text: str
    label: str
    score: float  # probability of `label`
    probabilities: dict[str, float]  # by label
    abstained: bool

    @classmethod
    def of(cls, text: str, row: int | None, prediction: Prediction) -> TextPrediction:
        """Return the record of an answer."""
        record = cls(
            text=text,
            label=prediction.label,
            score=prediction.score,
            probabilities=prediction.probabilities,
            abstained=prediction.abstained,
        )
        return record if row is None else record.replaced(row=row)
