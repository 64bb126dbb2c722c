"""Aliases of published versions: `ROOT/NAME.json` names a version and the ones before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finsent.errors import InputError
from finsent.files import directory_lock, make_dir, read_json, write_json
from finsent.names import VERSION_ID, alias_problem
from finsent.registry.gate import Clearance


def check_alias(alias: str) -> None:
    """Refuse a name that no alias may have.

    Raises:
        InputError: the alias could be confused with something else.
    """
    if problem := alias_problem(alias):
        raise InputError(f"alias {alias!r}: {problem}")


@dataclass(frozen=True)
class Target:
    """The version that an alias names, with its history."""

    version: str | None = None  # None: there is no such alias yet
    previous: list[str] = field(default_factory=list)  # versions before, oldest first
    gate: dict[str, Any] | None = None  # what the version passed to get the alias


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
        targets = {path.stem: _read(path) for path in sorted(self.root.glob("[!.]*.json"))}
        return {alias: target.version for alias, target in targets.items() if target.version}

    def get(self, alias: str) -> Target:
        """Return what an alias names.

        Raises:
            InputError: the alias is damaged.
        """
        path = self.root / f"{alias}.json"
        return _read(path) if path.is_file() else Target()

    def move(self, alias: str, version: str, clearance: Clearance | None) -> None:
        """Point an alias at a version, in one atomic step; readers see the old or the new one.

        Args:
            clearance: that the version has for this alias; None: it needs none.

        Raises:
            InputError: the alias has moved since the clearance was given.
        """
        with self._locked():
            old = self.get(alias)
            if old.version == version:
                return
            if clearance and old.version != clearance.replaces:
                raise InputError(
                    f"alias {alias!r}: the {alias} changed meanwhile, from "
                    f"{clearance.replaces or 'none'} to {old.version or 'none'}. Run again."
                )
            previous = [*old.previous, old.version] if old.version else []
            gate = clearance.gate if clearance else None
            self._write(alias, Target(version, previous, gate.as_json() if gate else None))

    @contextmanager
    def moving_back(self, alias: str) -> Iterator[str]:
        """Yield the version before, and point the alias at it when the block succeeds.

        Raises:
            InputError: the alias is unknown or has no earlier version.
        """
        self.check_writable()
        with self._locked():
            old = self.get(alias)
            if old.version is None:
                known = ", ".join(self.versions()) or "none"
                raise InputError(f"alias {alias!r}: unknown; known: {known}")
            if not old.previous:
                raise InputError(f"alias {alias!r}: has no earlier version to go back to")
            yield old.previous[-1]
            self._write(alias, Target(old.previous[-1], old.previous[:-1]))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Wait until no other process moves an alias."""
        with directory_lock(self.root, wait=True):
            yield

    def _write(self, alias: str, target: Target) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        record = {
            "version": target.version,
            "previous": target.previous,
            "since": since,
            "gate": target.gate,
        }
        write_json(self.root / f"{alias}.json", record)


def _read(path: Path) -> Target:
    alias = read_json(path)
    is_complete = isinstance(alias, dict) and isinstance(alias.get("previous"), list)
    if not is_complete or not VERSION_ID.fullmatch(str(alias.get("version"))):
        raise InputError(f"{path}: not an alias; delete it and promote a version again")
    gate = alias.get("gate")
    return Target(alias["version"], alias["previous"], gate if isinstance(gate, dict) else None)
