"""The audit log: numbered entries that are written once, each with its link of a hash chain.

`ROOT/audit/NUMBER.json` is an entry. A changed, deleted or inserted entry breaks the chain at its
number; a deletion of the newest entries does not. Writers on several machines form one chain,
because each number is written once.
"""

from __future__ import annotations

from typing import Literal

from finsent.errors import InputError
from finsent.hash_chain import START, HashChain, first_tampered
from finsent.records import JsonObject, Record
from finsent.rollout.rollout_record import RolloutDecision
from finsent.storage import Location

_LATEST = 64  # entries in which a decision of a process that died is searched


class AuditEntry(Record):
    """One decision on an alias."""

    schema_version: Literal[1] = 1
    number: int  # from 1
    link: str  # of the hash chain, after this entry
    alias: str
    rollout: str | None  # id; None: the alias was moved without a canary
    champion: str | None  # version that had the alias; None: no version
    candidate: str  # version that the decision is about
    decision: RolloutDecision

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged entry."""
        return "The audit log was changed. Compare it with a backup."

    def content(self) -> JsonObject:
        """Return the entry without its link."""
        return self.model_dump(mode="json", exclude={"link"})

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
            entry: its number and link are set here.
        """
        store = self._location.store
        # Only a rollout's decision may be in the log already.
        count = 1 if entry.rollout is None else _LATEST
        while True:
            latest = [self._read(number) for number in self._numbers()[-count:]]
            for stored in latest:
                if entry.rollout is not None and stored.is_same_decision(entry):
                    return stored
            last, head = (latest[-1].number, latest[-1].link) if latest else (0, START)
            numbered = entry.replaced(number=last + 1)
            numbered = numbered.replaced(link=HashChain(head).append(numbered.content()))
            if store.put_if_absent(_key(numbered.number), numbered.encode()):
                return numbered

    def entries(self) -> list[AuditEntry]:
        """Return all entries, verified, oldest first.

        Raises:
            InputError: an entry was changed, deleted or inserted; the message has its number.
        """
        entries = [self._read(number) for number in self._numbers()]
        for expected, entry in enumerate(entries, start=1):
            if entry.number != expected:
                raise InputError(
                    f"{self._place(expected)}: the entry is missing. The audit log was changed."
                )
        position = first_tampered((entry.content(), entry.link) for entry in entries)
        if position is not None:
            raise InputError(
                f"{self._place(position + 1)}: does not match its link. The entry was changed."
            )
        return entries

    def _numbers(self) -> list[int]:
        names = [info.key.removesuffix(".json") for info in self._location.store.list_objects("")]
        return sorted(int(name) for name in names if name.isdigit())

    def _read(self, number: int) -> AuditEntry:
        stored = self._location.store.read(_key(number))
        if stored is None:
            raise InputError(f"{self._place(number)}: the entry was deleted.")
        return AuditEntry.decode(stored.data, self._place(number))

    def _place(self, number: int) -> str:
        return self._location.store.locate(_key(number))


def _key(number: int) -> str:
    return f"{number:08d}.json"
