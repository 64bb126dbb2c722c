"""Verify the hash chains of the prediction log."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from finsent.errors import InputError
from finsent.hash_chain import START, first_tampered
from finsent.prediction_log.schema import CHAIN, LoggedPrediction
from finsent.prediction_log.segment import FOLDER, SegmentRecord, decode_segment
from finsent.storage import Location, Store


@dataclass(frozen=True)
class LogProblem:
    """A place of the log that was changed."""

    key: str  # of the segment, below the log
    row: int | None  # position of the first row that does not match; None: the complete segment
    problem: str


@dataclass(frozen=True)
class LogVerification:
    """The result of a verification."""

    segments: int
    rows: int
    problems: tuple[LogProblem, ...]


class _Chain:
    """The segments of one writer, verified in their order."""

    def __init__(self, writer: str) -> None:
        self._writer, self._number, self._head = writer, 0, START
        self.problems: list[LogProblem] = []

    def check(self, key: str, record: SegmentRecord, table: pa.Table) -> None:
        """Verify the next segment."""
        self._number += 1
        if record.number != self._number or _name(record) != key.rpartition("/")[2]:
            self.report(key, None, f"segment {self._number} of {self._writer} is missing")
        elif record.previous != self._head:
            self.report(key, None, "does not follow the segment before")
        rows = [
            (LoggedPrediction.from_row(row).to_json(), str(row[CHAIN])) for row in table.to_pylist()
        ]
        position = first_tampered(rows, record.previous)
        head = rows[-1][1] if rows else record.previous
        if position is not None:
            self.report(key, position, "the row does not match its link")
        elif len(rows) != record.rows or head != record.head:
            self.report(key, len(rows), "rows are missing at the end")
        self._number, self._head = record.number, record.head

    def resume(self, record: SegmentRecord) -> None:
        """Continue after unreadable segments with the link that the next segment names."""
        self._number, self._head = record.number - 1, record.previous

    def report(self, key: str, row: int | None, problem: str) -> None:
        """Add a problem.

        Args:
            row: position of the row; None: the complete segment.
        """
        self.problems.append(LogProblem(key, row, problem))


def verify(root: Location) -> LogVerification:
    """Verify every segment of the log, and return the changed places.

    A deletion of the newest segments of a writer is not found, because no later link names them.
    """
    store = (root / FOLDER).store
    keys = sorted((info.key for info in store.list_objects("")), key=_writer_and_name)
    rows, problems = 0, []
    for writer, writer_keys in groupby(keys, key=lambda key: _writer_and_name(key)[0]):
        chain, is_after_gap = _Chain(writer), False
        for key in writer_keys:
            try:
                record, table = _load(store, key)
            except InputError as error:
                chain.report(key, None, str(error))
                is_after_gap = True
                continue
            if is_after_gap:
                chain.resume(record)
            is_after_gap = False
            rows += table.num_rows
            chain.check(key, record, table)
        problems += chain.problems
    return LogVerification(len(keys), rows, tuple(problems))


def _load(store: Store, key: str) -> tuple[SegmentRecord, pa.Table]:
    stored = store.read(key)
    if stored is None:
        raise InputError(f"{store.locate(key)}: the segment was deleted.")
    return decode_segment(stored.data, store.locate(key))


def _name(record: SegmentRecord) -> str:
    return f"{record.writer}-{record.number:08d}.parquet"


def _writer_and_name(key: str) -> tuple[str, str]:
    name = key.rpartition("/")[2]
    return name.partition("-")[0], name
