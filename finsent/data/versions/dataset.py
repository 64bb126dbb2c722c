"""A dataset version: an immutable directory of Parquet splits and a manifest.

The files of a bucket's versions are read from verified copies in the local cache.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finsent.data.versions.manifest import MANIFEST, Manifest
from finsent.errors import InputError
from finsent.files import sha256_file, write_text
from finsent.labels import LABELS
from finsent.references import PATH, VERSION, only_match, parse, path_spelling
from finsent.storage import Location, StorageError, as_location
from finsent.storage.trees import MARKER

log = logging.getLogger(__name__)

LATEST = ".latest"  # file next to the versions with the id of the version that was last used


@dataclass(frozen=True)
class DatasetVersion:
    """A published dataset version."""

    path: Path
    origin: Location | None = None  # in a bucket; None: the directory itself

    def __reduce__(self) -> tuple[Any, ...]:
        if self.origin is None:
            return type(self), (self.path,)
        return type(self).fetched, (self.origin,)  # another machine fetches its own copy

    @classmethod
    def fetched(cls, location: Location) -> DatasetVersion:
        """Return the version at a location, with its files on this machine.

        Raises:
            InputError: there is no version, or it is damaged.
        """
        if location.is_local:
            return cls(location.path)
        parent, name = location.split()
        return cls(parent.trees.fetch(name), location)

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> DatasetVersion:
        """Open a version's directory.

        Raises:
            InputError: the version is incomplete, damaged, or has other labels.
        """
        version = cls(path)
        labels = version.manifest.labels
        if tuple(labels) != LABELS:
            raise InputError(
                f"{path / MANIFEST}: labels are {labels}, not {list(LABELS)}. Ingest again."
            )
        if verify:
            version.verify()
        return version

    @classmethod
    def at(cls, location: Path | Location) -> DatasetVersion | None:
        """Open the version of a directory or a location; None: there is none. Raises as `open`."""
        parent, name = as_location(location, "storage.root").split()
        return cls._opened(parent, name) if parent.trees.has_file(name, MANIFEST) else None

    @classmethod
    def _opened(cls, versions: Location, name: str) -> DatasetVersion:
        fetched = cls.fetched(versions / name)
        is_verified = fetched.origin is not None  # by the cache
        return replace(cls.open(fetched.path, verify=not is_verified), origin=fetched.origin)

    @classmethod
    def find(cls, reference: str, versions: Path | Location, field: str) -> DatasetVersion:
        """Open a version by id, by directory, or as `latest`: the version that was last used.

        Args:
            field: setting with the reference, for error messages.

        Raises:
            InputError: there is no such version, or the reference names two.
        """
        parsed, location = parse(reference, field, (VERSION, PATH)), as_location(versions, field)
        matches: dict[str, Path] = {}
        # A bucket's version has no path: its id stands for it.
        folder = location.path if location.is_local else Path(VERSION)
        is_name = "/" not in parsed.name and parsed.name not in ("", ".", "..")
        if parsed.may_be(VERSION) and (location.is_local or is_name):
            matches[f"{VERSION}:{parsed.name}"] = folder / parsed.name
        if parsed.may_be(PATH):
            matches[path_spelling(parsed.name)] = Path(parsed.name).expanduser().absolute()
        matches = {
            spelling: path
            for spelling, path in matches.items()
            if (
                location.trees.has_file(path.name, MANIFEST)
                if path.parent == folder
                else (path / MANIFEST).is_file()
            )
        }
        if reference == "latest" and (last := _last_used(location)):
            matches[f"{VERSION}:{last}"] = folder / last
        match = only_match(reference, field, matches)
        if match is not None and match.parent == folder:
            return cls._opened(location, match.name)
        if match is not None:
            return cls.open(match)
        if reference == "latest":
            raise InputError(
                f"{field}='latest': no dataset version in {str(location)!r}. "
                "Run `python -m ray_jobs.ingest` first."
            )
        raise InputError(
            f"{field}={reference!r}: no such dataset version. "
            f"Versions in {str(location)!r}: {', '.join(_version_names(location)) or 'none'}."
        )

    @cached_property
    def manifest(self) -> Manifest:
        """The parsed manifest.

        Raises:
            InputError: the file is missing or not a manifest of this schema.
        """
        return Manifest.read(self.path / MANIFEST)

    @property
    def version(self) -> str:
        """The version's id."""
        return self.manifest.version

    def mark_latest(self) -> None:
        """Make `latest` refer to this version.

        Where the folder of the versions cannot be written, log a warning: the version can be used.
        """
        name = f"{self.path.name}\n"
        if self.origin is not None:
            try:
                self.origin.split()[0].store.put(LATEST, name.encode())
            except StorageError as error:
                log.warning("`latest` does not become %s: %s", self.path.name, error)
            return
        try:
            write_text(self.path.parent / LATEST, name)
        except OSError as error:
            log.warning(
                "`latest` does not become %s: cannot write to %s (%s)",
                self.path.name,
                self.path.parent,
                error.strerror,
            )

    def files(self, split: str) -> list[Path]:
        """Return the Parquet files of a split."""
        return [self.path / file.path for file in self.manifest.splits[split].files]

    def rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return self.manifest.splits[split].rows

    def read(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """Read a complete split as one table, in the order of the files."""
        return pa.concat_tables(
            pq.read_table(file, columns=columns, partitioning=None) for file in self.files(split)
        )

    def verify(self) -> None:
        """Compare every file with its digest.

        Raises:
            InputError: a file is missing or changed.
        """
        for listed in self.manifest.digests:
            file = self.path / listed.path
            if not file.is_file() or sha256_file(file) != listed.sha256:
                raise InputError(
                    f"{file}: missing or changed since it was published. Delete "
                    f"{str(self.path)!r} and ingest again."
                )


def _version_names(location: Location) -> list[str]:
    """Return the ids of the versions at a location, sorted."""
    trees = location.trees
    return [name for name in trees.names("") if trees.has_file(name, MANIFEST)]


def _last_used(location: Location) -> str | None:
    """Return the id of the version that was last created or used."""
    marked = _read_mark(location)
    if marked and location.trees.has_file(marked, MANIFEST):
        return marked
    names = set(_version_names(location))
    infos = [info for info in location.store.list_objects("") if info.key.count("/") == 1]
    written = [
        (info.modified, info.key.partition("/")[0])
        for info in infos
        if info.key.endswith((f"/{MANIFEST}", f"/{MARKER}"))
    ]
    return max((entry for entry in written if entry[1] in names), default=(None, None))[1]


def _read_mark(location: Location) -> str:
    """Return the version id in the file `LATEST`, or an empty string."""
    try:
        stored = location.store.read(LATEST)
    except OSError:  # such as of another user's file
        return ""
    return stored.data.decode("utf-8", "replace").strip() if stored is not None else ""
