"""What a planted fault did: one JSON file per fault."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from finsent.records import Record

MEASURED = Path(__file__).parent / "measured"


class FaultRecord(Record):
    """What a planted fault did. A figure that the fault does not have is null."""

    schema_version: Literal[1] = 1
    name: str
    recovery_seconds: float | None  # null: no recovery
    exit_code: int | None = None  # of the job
    last_lines: tuple[str, ...] = ()  # of the job's log
    requests: int | None = None
    # Failed requests by status or class of the error.
    failures: dict[str, int] = Field(default_factory=dict)
    slowest_seconds: float | None = None  # of the answered requests
    epoch_rows_equal: bool | None = None  # also the steps; to the undisturbed run
    weights_equal: bool | None = None  # to those of the undisturbed run

    @property
    def failed(self) -> int:
        """Number of failed requests."""
        return sum(self.failures.values())

    @classmethod
    def remedy(cls) -> str:
        """Return how to measure the fault again."""
        return "Remove the file, and run `python -m benchmarks.faults`."


def measured() -> dict[str, FaultRecord]:
    """Return the stored records by the faults' names."""
    records = [FaultRecord.read(file) for file in sorted(MEASURED.glob("*.json"))]
    return {record.name: record for record in records}
