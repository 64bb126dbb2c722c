"""Leases: records by which one process at a time owns a name in a store.

The holder replaces its record every `seconds / 3`. A process that wants the name watches the
record. A record that does not change for `seconds` belongs to a dead holder and is taken over.
No times are compared between machines. The one assumption about clocks is that, while the watcher
measures `seconds`, the holder's clock measures at least a third of them.

A holder that stops for longer, e.g. by SIGSTOP, loses the lease. It learns so at its next renewal,
and `Lease.check` raises.
"""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Literal

from finsent.errors import InputError
from finsent.records import Record
from finsent.storage.store import StorageError, Store

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
_RENEWALS = 3  # in the seconds of a lease
_POLLS = 20  # of a watcher, in the seconds of a lease


class LeaseRecord(Record):
    """The content of a lease."""

    schema_version: Literal[1] = 1
    holder: str  # an id of the lease's owner
    host: str
    renewals: int


class Lease:
    """A lease of this process.

    Args:
        subject: the setting that names what is owned, for messages, e.g. `run.name='a'`.
        seconds: without renewal, after which another process takes the lease over.
    """

    def __init__(self, store: Store, key: str, subject: str, seconds: float) -> None:
        self._store, self._key, self._subject, self._seconds = store, key, subject, seconds
        self._record = LeaseRecord(
            holder=uuid.uuid4().hex[:16], host=socket.gethostname(), renewals=0
        )
        self._etag: str | None = None
        self._is_lost = False
        self._has_ended = Event()

    def check(self) -> None:
        """Check that no other process took the lease over.

        Raises:
            InputError: another process did.
        """
        if self._is_lost:
            raise InputError(
                f"{self._subject}: another process took the run over, as this one did not renew "
                f"its lease for {self._seconds:g} s. Wait for the other process, or run this job "
                "under another run.name."
            )

    def acquire(self) -> None:
        """Acquire the lease, or take it over from a dead holder.

        Raises:
            InputError: a living process holds the lease.
        """
        while self._etag is None:
            self._etag = self._store.put_if_absent(self._key, self._record.encode())
            if self._etag is None:
                self._etag = self._take_over()

    def _take_over(self) -> str | None:
        """Return the ETag of the lease that was a dead holder's; None: it was released."""
        stored = self._store.read(self._key)
        if stored is None:
            return None
        host = LeaseRecord.decode(stored.data, self._store.locate(self._key)).host
        log.info(
            "%s: waiting up to %g s to see whether the process on %s that ran it still lives",
            self._subject,
            self._seconds,
            host,
        )
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            time.sleep(self._seconds / _POLLS)
            current = self._store.read(self._key)
            if current is None:
                return None
            if current.etag != stored.etag:
                raise self._held(host)
        etag = self._store.put_if_match(self._key, self._record.encode(), stored.etag)
        if etag is None:
            raise self._held(host)
        log.warning("%s: continues the run of a process on %s that has died", self._subject, host)
        return etag

    def _held(self, host: str) -> InputError:
        return InputError(
            f"{self._subject}: a process on {host} runs it. Wait for its end, or choose another "
            "run.name."
        )

    def keep(self) -> None:
        """Renew the lease until `release`, or until another process takes the lease over."""
        while not self._has_ended.wait(self._seconds / _RENEWALS):
            record = self._record.replaced(renewals=self._record.renewals + 1)
            assert self._etag is not None
            try:
                etag = self._store.put_if_match(self._key, record.encode(), self._etag)
            except StorageError as error:  # the store may answer again before another process asks
                log.warning("%s: its lease was not renewed (%s)", self._subject, error)
                continue
            if etag is None:
                self._is_lost = True
                log.error("%s: another process took the run over", self._subject)
                return
            self._record, self._etag = record, etag

    def release(self) -> None:
        """Delete the lease, unless another process has taken it over."""
        self._has_ended.set()
        with suppress(StorageError):  # the next holder takes the lease over
            stored = self._store.read(self._key)
            if stored is not None and self._record.holder.encode() in stored.data:
                self._store.delete(self._key)


@contextmanager
def hold_lease(
    store: Store, key: str, subject: str, seconds: float = LEASE_SECONDS
) -> Iterator[Lease]:
    """Own a name while the block runs.

    Args:
        subject: the setting that names what is owned, for messages, e.g. `run.name='a'`.
        seconds: without renewal, after which another process takes the lease over.

    Raises:
        InputError: a living process owns the name, or, at the block's end, has taken it over.
    """
    lease = Lease(store, key, subject, seconds)
    lease.acquire()
    # A daemon: a renewal that waits for the store does not delay the end of the process.
    thread = Thread(target=lease.keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
        lease.check()
    finally:
        lease.release()
