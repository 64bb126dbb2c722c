"""A record that several processes change: each change is a compare-and-swap."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from finsent.errors import InputError
from finsent.records import Record
from finsent.storage import Location

_MAX_WAIT_SECONDS = 0.2  # before another attempt

State = TypeVar("State", bound=Record)


@dataclass(frozen=True)
class StateFile(Generic[State]):
    """One record below a location."""

    location: Location
    key: str
    type: type[State]

    def get(self) -> State | None:
        """Return the record; None: it does not exist.

        Raises:
            InputError: the record is damaged.
        """
        return self._read()[0]

    def change(self, plan: Callable[[State | None], State | None]) -> State | None:
        """Replace the record, and return the new one.

        Args:
            plan: returns the new record; the same record: nothing is to change. Is called again
                when another process was first.

        Raises:
            InputError: other processes changed the record all the time, or it is damaged.
        """
        store, seconds = self.location.store, self.location.config.retry_seconds
        deadline, has_tried = time.monotonic() + seconds, False
        while True:
            old, etag = self._read()
            new = plan(old)
            if new is None or new is old:
                return old
            if etag is None:
                is_written = store.put_if_absent(self.key, new.encode())
            else:
                is_written = store.put_if_match(self.key, new.encode(), etag)
            if is_written:
                return new
            if has_tried and time.monotonic() >= deadline:
                raise InputError(
                    f"{store.locate(self.key)}: other processes changed the file all the time for "
                    f"{seconds:g} s. Run again."
                )
            has_tried = True
            time.sleep(random.uniform(0, min(_MAX_WAIT_SECONDS, seconds)))

    def _read(self) -> tuple[State | None, str | None]:
        """Return the record and its ETag."""
        stored = self.location.store.read(self.key)
        if stored is None:
            return None, None
        return self.type.decode(stored.data, self.location.store.locate(self.key)), stored.etag
