"""Aliases of published versions: `ROOT/NAME.json` names a version and the earlier versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from finsent.errors import InputError
from finsent.files import directory_lock, make_dir
from finsent.names import VERSION_ID, alias_problem
from finsent.records import Record
from finsent.registry.gate import Clearance, Gate


def check_alias(alias: str) -> None:
    """Refuse a name that is not allowed for an alias.

    Raises:
        InputError: the name is not allowed for an alias.
    """
    if problem := alias_problem(alias):
        raise InputError(f"alias {alias!r}: {problem}")


class AliasRecord(Record):
    """The content of `ROOT/NAME.json`: the alias's version and its history."""

    version: Annotated[str, Field(pattern=f"^{VERSION_ID.pattern}$")]
    previous: tuple[str, ...]  # earlier versions, oldest first
    since: str  # ISO 8601
    gate: Gate | None  # that the version passed to get the alias; None: no comparison was needed

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged alias."""
        return "Delete the file and promote a version again."


class Aliases:
    """The aliases under a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check_writable(self) -> None:
        """Create the directory.

        Raises:
            InputError: it cannot be created or written.
        """
        make_dir(self.root, "registry.root")

    def versions(self) -> dict[str, str]:
        """Return the version id by alias.

        Raises:
            InputError: an alias is damaged.
        """
        paths = sorted(self.root.glob("[!.]*.json"))
        return {path.stem: AliasRecord.read(path).version for path in paths}

    def get(self, alias: str) -> AliasRecord | None:
        """Return the record of an alias; None: there is no such alias.

        Raises:
            InputError: the alias is damaged.
        """
        path = self.root / f"{alias}.json"
        return AliasRecord.read(path) if path.is_file() else None

    def move(self, alias: str, version: str, clearance: Clearance | None) -> None:
        """Point an alias at a version, atomically: readers see the old version or the new one.

        Args:
            clearance: of the version for this alias; None: the alias has no gate.

        Raises:
            InputError: the alias has moved since the clearance was given.
        """
        with self._locked():
            old = self.get(alias)
            old_version = old.version if old else None
            if old_version == version:
                return
            if clearance and old_version != clearance.replaces:
                raise InputError(
                    f"alias {alias!r}: the {alias} changed meanwhile, from "
                    f"{clearance.replaces or 'none'} to {old_version or 'none'}. Run again."
                )
            previous = (*old.previous, old.version) if old else ()
            self._write(alias, version, previous, clearance.gate if clearance else None)

    @contextmanager
    def moving_back(self, alias: str) -> Iterator[str]:
        """Yield the previous version, and point the alias at it when the block succeeds.

        Raises:
            InputError: the alias is unknown or has no earlier version.
        """
        self.check_writable()
        with self._locked():
            old = self.get(alias)
            if old is None:
                known = ", ".join(self.versions()) or "none"
                raise InputError(
                    f"alias {alias!r}: unknown (known: {known}). Name an existing alias."
                )
            if not old.previous:
                raise InputError(
                    f"alias {alias!r}: has no earlier version. Promote a version instead."
                )
            yield old.previous[-1]
            self._write(alias, old.previous[-1], old.previous[:-1], None)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Wait until no other process moves an alias."""
        with directory_lock(self.root, wait=True):
            yield

    def _write(
        self, alias: str, version: str, previous: tuple[str, ...], gate: Gate | None
    ) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        record = AliasRecord(version=version, previous=previous, since=since, gate=gate)
        record.write(self.root / f"{alias}.json")
