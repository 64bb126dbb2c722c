"""Aliases of published versions: `ROOT/NAME.json` names a version and the earlier versions.

A change is compare-and-swap: it reads the record, and replaces exactly the record that it read. So
the changes of an alias, by any number of processes and machines, form one line of succession.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from finsent.errors import InputError
from finsent.names import VERSION_ID, alias_problem
from finsent.records import Record
from finsent.registry.gate import Clearance, Gate
from finsent.storage import Location, StorageError, as_location

_MAX_WAIT_SECONDS = 0.5

VersionId = Annotated[str, Field(pattern=f"^{VERSION_ID.pattern}$")]


def check_alias(alias: str) -> None:
    """Refuse a name that is not allowed for an alias.

    Raises:
        InputError: the name is not allowed for an alias.
    """
    if problem := alias_problem(alias):
        raise InputError(f"alias {alias!r}: {problem}")


class AliasChange(Record):
    """One change of an alias."""

    id: str  # that no other change has
    action: Literal["promote", "rollback"]
    version: VersionId
    at: str  # ISO 8601


class AliasRecord(Record):
    """The content of `ROOT/NAME.json`: the alias's version and its history."""

    version: VersionId
    previous: tuple[str, ...]  # versions that rollbacks return to, oldest first
    since: str  # ISO 8601
    gate: Gate | None  # that the version passed to get the alias; None: no comparison was needed
    changes: tuple[AliasChange, ...] = ()  # all, oldest first; older records lack the key

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged alias."""
        return "Delete the file and promote a version again."


Planned = tuple[Literal["promote", "rollback"], str, tuple[str, ...], Gate | None]


class Aliases:
    """The aliases below a location."""

    def __init__(self, root: Location | Path) -> None:
        self.location = as_location(root, "registry.root")

    def check_writable(self) -> None:
        """Check that aliases can be written.

        Raises:
            InputError: they cannot.
        """
        self.location.check_writable()

    def versions(self) -> dict[str, str]:
        """Return the version id by alias.

        Raises:
            InputError: an alias is damaged.
        """
        keys = [info.key for info in self.location.store.list_objects("")]
        names = [
            key.removesuffix(".json")
            for key in keys
            if key.endswith(".json") and "/" not in key and not key.startswith(".")
        ]
        records = {name: self.get(name) for name in names}
        return {name: record.version for name, record in records.items() if record is not None}

    def get(self, alias: str) -> AliasRecord | None:
        """Return the record of an alias; None: there is no such alias.

        Raises:
            InputError: the alias is damaged.
        """
        record, _ = self._read(alias)
        return record

    def move(self, alias: str, version: str, clearance: Clearance | None) -> None:
        """Point an alias at a version, atomically: readers see the old version or the new one.

        Args:
            clearance: of the version for this alias; None: the alias has no gate.

        Raises:
            InputError: the alias has moved since the clearance was given.
        """

        def plan(old: AliasRecord | None) -> Planned | None:
            old_version = old.version if old else None
            if old_version == version:
                return None
            if clearance and old_version != clearance.replaces:
                raise InputError(
                    f"alias {alias!r}: moved from {clearance.replaces or 'no version'} to "
                    f"{old_version or 'no version'} after the comparison. Run again."
                )
            previous = (*old.previous, old.version) if old else ()
            return "promote", version, previous, clearance.gate if clearance else None

        self._change(alias, plan)

    def move_back(self, alias: str, verify: Callable[[str], object]) -> str:
        """Point an alias at its previous version, and return the version's id.

        Args:
            verify: raises an error if the version cannot be used.

        Raises:
            InputError: the alias is unknown or has no earlier version.
        """
        self.check_writable()

        def plan(old: AliasRecord | None) -> Planned:
            if old is None:
                known = ", ".join(self.versions()) or "none"
                raise InputError(
                    f"alias {alias!r}: unknown (known: {known}). Name an existing alias."
                )
            if not old.previous:
                raise InputError(
                    f"alias {alias!r}: has no earlier version. Promote a version instead."
                )
            verify(old.previous[-1])
            return "rollback", old.previous[-1], old.previous[:-1], None

        return self._change(alias, plan)

    def _change(self, alias: str, plan: Callable[[AliasRecord | None], Planned | None]) -> str:
        """Replace the record of an alias, and return the alias's version.

        Args:
            plan: returns the change of a record; None: nothing is to change. Is called again when
                another process was first.
        """
        change_id, key = uuid.uuid4().hex[:16], f"{alias}.json"
        store, seconds = self.location.store, self.location.config.retry_seconds
        deadline, has_tried = time.monotonic() + seconds, False
        while True:
            old, etag = self._read(alias)
            if (own := _own_version(old, change_id)) is not None:
                return own  # written by a request whose response was lost
            if has_tried and time.monotonic() >= deadline:
                raise InputError(
                    f"alias {alias!r}: other processes kept changing the alias for "
                    f"{seconds:g} s. Run again."
                )
            planned = plan(old)
            if planned is None:
                assert old is not None
                return old.version
            data = _changed(change_id, old, planned).encode()
            try:
                if (
                    store.put_if_absent(key, data)
                    if etag is None
                    else store.put_if_match(key, data, etag)
                ):
                    return planned[1]
            except StorageError as error:
                return self._confirmed(alias, change_id, error)
            has_tried = True
            time.sleep(random.uniform(0, min(_MAX_WAIT_SECONDS, seconds)))

    def _confirmed(self, alias: str, change_id: str, error: StorageError) -> str:
        """Return the version of a change whose request failed, if the store carried it out.

        Raises:
            StorageError: the alias has not changed, or the store does not tell.
        """
        try:
            own = _own_version(self.get(alias), change_id)
        except StorageError:
            raise StorageError(
                f"{error} Alias {alias!r} may have changed: run `finsent registry list` before "
                "you repeat the command."
            ) from None
        if own is None:
            raise error
        return own

    def _read(self, alias: str) -> tuple[AliasRecord | None, str | None]:
        """Return the record of an alias and its ETag; None: there is no such alias."""
        key = f"{alias}.json"
        stored = self.location.store.read(key)
        if stored is None:
            return None, None
        return AliasRecord.decode(stored.data, self.location.store.locate(key)), stored.etag


def _own_version(record: AliasRecord | None, change_id: str) -> str | None:
    """Return the version that a change set; None: the record lacks the change."""
    changes = record.changes if record else ()
    return next((change.version for change in changes if change.id == change_id), None)


def _changed(change_id: str, old: AliasRecord | None, planned: Planned) -> AliasRecord:
    action, version, previous, gate = planned
    at = datetime.now(UTC).isoformat(timespec="seconds")
    change = AliasChange(id=change_id, action=action, version=version, at=at)
    changes = (*(old.changes if old else ()), change)
    return AliasRecord(version=version, previous=previous, since=at, gate=gate, changes=changes)
