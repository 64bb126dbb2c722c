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
from finsent.storage import Location, as_location

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
                    f"alias {alias!r}: the {alias} changed meanwhile, from "
                    f"{clearance.replaces or 'none'} to {old_version or 'none'}. Run again."
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
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            old, etag = self._read(alias)
            if old and (own := [c for c in old.changes if c.id == change_id]):
                return own[0].version  # written by a request whose response was lost
            planned = plan(old)
            if planned is None:
                assert old is not None
                return old.version
            data = _changed(change_id, old, planned).encode()
            if (
                store.put_if_absent(key, data)
                if etag is None
                else store.put_if_match(key, data, etag)
            ):
                return planned[1]
            time.sleep(random.uniform(0, min(_MAX_WAIT_SECONDS, seconds)))
        raise InputError(
            f"alias {alias!r}: other processes changed the alias all the time for {seconds:g} s. "
            "Run again."
        )

    def _read(self, alias: str) -> tuple[AliasRecord | None, str | None]:
        """Return the record of an alias and its ETag; None: there is no such alias."""
        key = f"{alias}.json"
        stored = self.location.store.read(key)
        if stored is None:
            return None, None
        return AliasRecord.decode(stored.data, self.location.store.locate(key)), stored.etag


def _changed(change_id: str, old: AliasRecord | None, planned: Planned) -> AliasRecord:
    action, version, previous, gate = planned
    at = datetime.now(UTC).isoformat(timespec="seconds")
    change = AliasChange(id=change_id, action=action, version=version, at=at)
    changes = (*(old.changes if old else ()), change)
    return AliasRecord(version=version, previous=previous, since=at, gate=gate, changes=changes)
