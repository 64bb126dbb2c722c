"""The audit log: numbered entries that are written once, each with the digest of the one before.

`ROOT/audit/NUMBER.json` is an entry. A changed, deleted or inserted entry breaks the chain at its
number; a deletion of the newest entries does not. Writers on several machines form one chain,
because each number is written once.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

from finsent.errors import InputError
from finsent.records import Record
from finsent.rollout.rollout_record import RolloutDecision
from finsent.storage import Location

START = "0" * 64  # in the place of a digest before the first entry
_LATEST = 64  # entries in which a decision of a process that died is searched


class AuditEntry(Record):
    """One decision on an alias."""

    schema_version: Literal[1] = 1
    number: int  # from 1
    previous: str  # SHA-256 of the file of the entry before
    alias: str
    rollout: str | None  # id; None: the alias was moved without a canary
    champion: str | None  # version that had the alias; None: no version
    candidate: str  # version that the decision is about
    decision: RolloutDecision

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged entry."""
        return "The audit log was changed. Compare it with a backup."

    def is_same_decision(self, other: AuditEntry) -> bool:
        """Return whether another entry is about the same decision."""
        return (self.rollout, self.decision) == (other.rollout, other.decision)


class AuditLog:
    """The audit log below a storage root."""

    def __init__(self, root: Location) -> None:
        self._location = root / "audit"

    def append(self, entry: AuditEntry) -> AuditEntry:
        """Append a decision, unless it is in the log, and return its entry.

        Args:
            entry: its number and digest are set here.
        """
        store = self._location.store
        while True:
            numbers = self._numbers()
            for number in reversed(numbers[-_LATEST:]):
                stored, _ = self._read(number)
                if entry.rollout is not None and stored.is_same_decision(entry):
                    return stored
            last = numbers[-1] if numbers else 0
            previous = self._read(last)[1] if last else START
            numbered = entry.replaced(number=last + 1, previous=previous)
            if store.put_if_absent(_key(numbered.number), numbered.encode()):
                return numbered

    def entries(self) -> list[AuditEntry]:
        """Return all entries, verified, oldest first.

        Raises:
            InputError: an entry was changed, deleted or inserted; the message has its number.
        """
        entries, digest = [], START
        for expected, number in enumerate(self._numbers(), start=1):
            if number != expected:
                raise InputError(
                    f"{self._place(expected)}: the entry is missing. The audit log was changed."
                )
            entry, own_digest = self._read(number)
            if entry.number != number or entry.previous != digest:
                raise InputError(
                    f"{self._place(number)}: does not follow the entry before. One of the two was "
                    "changed."
                )
            entries.append(entry)
            digest = own_digest
        return entries

    def _numbers(self) -> list[int]:
        names = [info.key.removesuffix(".json") for info in self._location.store.list_objects("")]
        return sorted(int(name) for name in names if name.isdigit())

    def _read(self, number: int) -> tuple[AuditEntry, str]:
        """Return an entry, and the digest of its file."""
        stored = self._location.store.read(_key(number))
        if stored is None:
            raise InputError(f"{self._place(number)}: the entry was deleted.")
        return AuditEntry.decode(stored.data, self._place(number)), sha256(stored.data).hexdigest()

    def _place(self, number: int) -> str:
        return self._location.store.locate(_key(number))


def _key(number: int) -> str:
    return f"{number:08d}.json"
