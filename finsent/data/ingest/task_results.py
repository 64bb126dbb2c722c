"""Results of the tasks of ingest, which the driver receives as JSON: counts, ids and examples.

The records are versioned because a task may run on a node with another version of finsent.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ValidationError

from finsent.data.versions.manifest import RejectedRows, SplitFile
from finsent.errors import InputError
from finsent.records import Record


class TaskResult(Record):
    """Base of the results of all tasks."""

    schema_version: Literal[1] = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the JSON text of a result.

        Raises:
            InputError: the task ran on a node with another version of finsent.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"])) or "result"
            raise InputError(
                f"ray: a node has another version of finsent ({cls.__name__}.{key}: "
                f"{problem['msg']}). Install the same version on all nodes."
            ) from None


class RejectedBlockRows(RejectedRows):
    """The rows of a block that were rejected for one reason."""

    row: int  # position of the first such row in its source


class ScanResult(TaskResult):
    """Result of cleaning a block of one source."""

    source: int  # position of the source
    rows: int
    bytes: int
    rejected: dict[str, RejectedBlockRows]  # by reason
    mojibake: int  # texts that were repaired
    entities: int  # texts that were repaired
    damaged: int  # texts with U+FFFD


class FirstConflict(Record):
    """The oldest row among the texts that stand under several labels."""

    source: str
    row: int
    description: str  # position and label of this row and of one with another label


class WriteResult(TaskResult):
    """Result of writing the splits of a partition."""

    removed: dict[str, list[int]]  # rows by reason and source
    files: dict[str, SplitFile]  # by split
    labels: dict[str, list[list[int]]]  # rows by split, source and label
    lengths: list[int]  # texts by length in words
    near: list[tuple[int, int, int]]  # (root of the near-duplicate group, label, rows)


class SettleResult(TaskResult):
    """Result of deciding the fate of the rows of a partition."""

    fates: dict[str, list[int]]  # rows by fate and source
    decisions: dict[str, int]  # texts in conflict by decision
    best_votes: int  # rows that carry the most frequent label of their text
    kept_best_votes: int  # the same among kept rows
    first_conflict: FirstConflict | None
    written: WriteResult | None  # None: the splits wait for the near-duplicate groups


class CompareResult(TaskResult):
    """Result of comparing the texts of a partition of bands."""

    edges: int
