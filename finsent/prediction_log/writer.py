"""Write the prediction log: rows wait in memory, and a flush stores them as segments."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Sequence
from itertools import islice, takewhile

from finsent.errors import InputError
from finsent.hash_chain import START
from finsent.prediction_log.schema import LoggedPrediction
from finsent.prediction_log.segment import FOLDER, Segment, encode_segment, hour_of
from finsent.storage import Location

_MAX_SEGMENT_ROWS = 50_000


class LogWriter:
    """Writes the rows of one process. Threads may share a writer.

    A segment's name has the writer's id and a number, and a segment is created only if the name is
    unused. A flush that failed is repeated with the same name and bytes, so no row is stored twice.
    A process that is killed loses the rows since its last flush.
    """

    def __init__(self, root: Location, max_rows: int) -> None:
        """Make a writer that has stored nothing yet.

        Args:
            root: storage root; the log is in `predictions` below it.
            max_rows: that wait in memory; further rows are dropped and counted.
        """
        self.stored = 0  # rows
        self.dropped = 0  # rows for which there was no room
        self._store = (root / FOLDER).store
        self._max_rows = max_rows
        self._id = uuid.uuid4().hex
        self._number = 0  # of the newest segment
        self._head = START  # link of the newest row in a segment
        self._waiting: deque[LoggedPrediction] = deque()
        self._taken = 0  # rows of the segment that is not known to be stored
        self._pending: Segment | None = None  # the same segment, once it is encoded
        self._waiting_lock, self._flush_lock = threading.Lock(), threading.Lock()

    @property
    def waiting(self) -> int:
        """Rows that are not stored yet."""
        return len(self._waiting) + self._taken

    def add(self, predictions: Sequence[LoggedPrediction]) -> int:
        """Accept rows as far as there is room, and return how many were accepted."""
        with self._waiting_lock:
            room = max(0, self._max_rows - self.waiting)
            accepted = predictions[:room]
            self._waiting.extend(accepted)
            self.dropped += len(predictions) - len(accepted)
            return len(accepted)

    def flush(self) -> int:
        """Store the waiting rows and return how many were stored.

        Raises:
            StorageError: the store cannot be used. The rows wait for the next flush.
            DiskError: the same of a local directory.
            InputError: the name of a segment is in use by other content.
        """
        stored = 0
        with self._flush_lock:
            while segment := self._next_segment():
                if self._store.put_if_absent(segment.key, segment.data) is None:
                    uri = self._store.locate(segment.key)
                    raise InputError(f"{uri}: another writer has written this segment.")
                self._pending, self._taken = None, 0
                self.stored += segment.rows
                stored += segment.rows
        return stored

    def _next_segment(self) -> Segment | None:
        """Return the segment to store next: one that failed, or waiting rows of one hour."""
        if self._pending is None and (rows := self._take_rows()):
            number = self._number + 1
            self._pending = encode_segment(self._id, number, self._head, rows)
            self._number, self._head = number, self._pending.head
        return self._pending

    def _take_rows(self) -> list[LoggedPrediction]:
        """Remove the oldest waiting rows of one hour, and return them."""
        with self._waiting_lock:
            if not self._waiting:
                return []
            hour = hour_of(self._waiting[0].time)
            same_hour = takewhile(lambda row: hour_of(row.time) == hour, self._waiting)
            rows = list(islice(same_hour, _MAX_SEGMENT_ROWS))
            for _ in rows:
                self._waiting.popleft()
            self._taken = len(rows)
            return rows
