"""The record of a scored file in the manifest of its directory."""

from __future__ import annotations

from pydantic import Field

from finsent.records import Record


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
