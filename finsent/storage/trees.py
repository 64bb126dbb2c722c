"""Immutable directories by key, each visible complete or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field, ValidationError

from finsent.disk import translate_disk_errors
from finsent.errors import InputError
from finsent.files import STAGING, scratch_dir, sha256_file, staged_dir
from finsent.records import Record
from finsent.storage.cache import CachedTree, LocalCache
from finsent.storage.store import StorageError, Store

MARKER = "tree.json"
_TRANSFERS = 4  # files at a time
_ABANDONED = timedelta(days=7)  # no upload takes longer


def _inner_path(path: str) -> str:
    """Refuse a path outside of the tree: who writes to the bucket may not write to this machine."""
    if {"", ".", ".."} & {*path.split("/")}:
        raise ValueError(f"{path!r} is not below the tree")
    return path


class TreeFile(Record):
    """A file of a tree."""

    path: Annotated[str, AfterValidator(_inner_path)]  # relative to the tree
    bytes: int
    sha256: str


class TreeMarker(Record):
    """The content of `KEY/tree.json`, whose existence makes the tree visible."""

    schema_version: Literal[1] = 1
    attempt: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # the files are below KEY/ATTEMPT/
    files: tuple[TreeFile, ...]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def sha256_by_path(self) -> dict[str, str]:
        """The digests of all files."""
        return {file.path: file.sha256 for file in self.files}


class Trees(Protocol):
    """Immutable directories by key. Methods raise `StorageError` or `DiskError`."""

    def locate(self, key: str) -> str:
        """Return path or URI of a tree for messages, without options."""

    def names(self, prefix: str) -> list[str]:
        """Return the names of the published trees directly below `PREFIX/`, sorted."""

    def is_published(self, key: str) -> bool:
        """Return whether there is a complete tree."""

    def has_file(self, key: str, path: str) -> bool:
        """Return whether there is a tree that lists a file."""

    def read_file(self, key: str, path: str) -> bytes | None:
        """Return the bytes of a tree's file; None: there is no such tree or file."""

    def publish(self, key: str) -> AbstractContextManager[Path]:
        """Yield a local staging directory, which becomes the tree when the block succeeds.

        When the block fails, or another writer has published the tree first, the staged files are
        removed. An existing tree does not change.
        """

    def fetch(self, key: str) -> Path:
        """Return a local directory with the tree's files, complete and verified.

        Raises:
            InputError: there is no such tree, or it is damaged.
        """

    def delete(self, key: str) -> None:
        """Delete a tree, if it exists. Readers see it complete or not at all."""


@dataclass(frozen=True)
class LocalTrees:
    """Trees in a directory: `KEY/` holds the files, and appears by a rename."""

    root: Path
    field: str  # the setting that names the root

    def locate(self, key: str) -> str:
        """Return the path of a tree."""
        return str(self.root / key)

    def names(self, prefix: str) -> list[str]:
        """Return the names of the directories in a directory."""
        paths = (self.root / prefix).glob("*")
        return sorted(p.name for p in paths if not p.name.startswith(STAGING) and p.is_dir())

    def is_published(self, key: str) -> bool:
        """Return whether there is a directory."""
        return (self.root / key).is_dir()

    def has_file(self, key: str, path: str) -> bool:
        """Return whether there is a file."""
        return (self.root / key / path).is_file()

    def read_file(self, key: str, path: str) -> bytes | None:
        """Return the bytes of a file; None: there is no such file."""
        try:
            return (self.root / key / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def publish(self, key: str) -> Iterator[Path]:
        """Yield a staging directory, which is renamed when the block succeeds."""
        with (
            translate_disk_errors(self.root / key, self.field),
            staged_dir(self.root / key) as staging,
        ):
            yield staging

    def fetch(self, key: str) -> Path:
        """Return the directory of the tree."""
        if not self.is_published(key):
            raise _missing(self.locate(key))
        return self.root / key

    def delete(self, key: str) -> None:
        """Delete the directory, after a rename that hides it."""
        tree = self.root / key
        hidden = tree.with_name(f"{STAGING}{uuid.uuid4().hex[:8]}")
        with translate_disk_errors(tree, self.field), suppress(FileNotFoundError):
            tree.rename(hidden)
            shutil.rmtree(hidden)


@dataclass(frozen=True)
class ObjectTrees:
    """Trees in a bucket: `KEY/tree.json` names the prefix of the files, and is written last."""

    store: Store
    cache: LocalCache

    def locate(self, key: str) -> str:
        """Return the URI of a tree."""
        return self.store.locate(key)

    def names(self, prefix: str) -> list[str]:
        """Return the names below a prefix that have a marker."""
        names = self.store.list_folders(prefix)
        keys = [f"{prefix}/{name}" if prefix else name for name in names]
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            published = pool.map(self.is_published, keys)
        return [name for name, is_published in zip(names, published, strict=True) if is_published]

    def is_published(self, key: str) -> bool:
        """Return whether there is a marker."""
        return self.store.read(f"{key}/{MARKER}") is not None

    def marker(self, key: str) -> TreeMarker | None:
        """Return a tree's marker; None: there is no such tree.

        Raises:
            StorageError: the marker is damaged.
        """
        stored = self.store.read(f"{key}/{MARKER}")
        if stored is None:
            return None
        try:
            return TreeMarker.model_validate_json(stored.data)
        except ValidationError:
            raise StorageError(
                f"{self.locate(key)}/{MARKER}: is damaged. Delete {self.locate(key)} and write it "
                "again."
            ) from None

    def has_file(self, key: str, path: str) -> bool:
        """Return whether there is a marker that lists a file."""
        marker = self.marker(key)
        return marker is not None and path in marker.sha256_by_path

    def read_file(self, key: str, path: str) -> bytes | None:
        """Return the bytes of a tree's file; None: there is no such tree or file."""
        marker = self.marker(key)
        if marker is None or path not in marker.sha256_by_path:
            return None
        stored = self.store.read(f"{key}/{marker.attempt}/{path}")
        if stored is None or sha256(stored.data).hexdigest() != marker.sha256_by_path[path]:
            raise _damaged(self.locate(key), path)
        return stored.data

    @contextmanager
    def publish(self, key: str) -> Iterator[Path]:
        """Yield a staging directory, which is uploaded when the block succeeds."""
        with (
            translate_disk_errors(self.cache.folder, "storage.cache_dir"),
            scratch_dir(self.cache.folder) as staging,
        ):
            yield staging
            self.upload(staging, key)

    def upload(self, folder: Path, key: str) -> bool:
        """Publish a local directory, which the caller keeps.

        Returns:
            Whether this call published the tree; False: another writer was first.
        """
        self._delete_abandoned(key)
        attempt = uuid.uuid4().hex[:16]
        try:
            marker = self._upload_files(folder, f"{key}/{attempt}", attempt)
            data = marker.model_dump_json(indent=2).encode()
            is_first = self.store.put_if_absent(f"{key}/{MARKER}", data) is not None
        except BaseException:
            # The marker may have been written although the request failed: then the files stay.
            stored = self.store.read(f"{key}/{MARKER}")
            if stored is None or attempt.encode() not in stored.data:
                self.store.delete_prefix(f"{key}/{attempt}")
            raise
        if not is_first:
            self.store.delete_prefix(f"{key}/{attempt}")
        return is_first

    def _upload_files(self, folder: Path, prefix: str, attempt: str) -> TreeMarker:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())

        def upload(path: Path) -> TreeFile:
            name = path.relative_to(folder).as_posix()
            self.store.upload(path, f"{prefix}/{name}")
            return TreeFile(path=name, bytes=path.stat().st_size, sha256=sha256_file(path))

        with ThreadPoolExecutor(_TRANSFERS) as pool:
            return TreeMarker(attempt=attempt, files=tuple(pool.map(upload, paths)))

    def _delete_abandoned(self, key: str) -> None:
        """Delete what writers uploaded and left when they died."""
        infos = self.store.list_objects(key)
        if not infos or any(info.key == f"{key}/{MARKER}" for info in infos):
            return
        newest: dict[str, datetime] = {}
        for info in infos:
            attempt = info.key.removeprefix(f"{key}/").partition("/")[0]
            newest[attempt] = max(info.modified, newest.get(attempt, info.modified))
        for attempt, modified in newest.items():
            if datetime.now(UTC) - modified > _ABANDONED:
                self.store.delete_prefix(f"{key}/{attempt}")

    def fetch(self, key: str) -> Path:
        """Return the copy in the cache, downloaded where it is missing or damaged."""
        marker = self.marker(key)
        if marker is None:
            raise _missing(self.locate(key))
        digests = marker.sha256_by_path
        prefix = f"{key}/{marker.attempt}"

        def download(folder: Path) -> None:
            with ThreadPoolExecutor(_TRANSFERS) as pool:
                for _ in pool.map(
                    lambda name: self.store.download(
                        f"{prefix}/{name}", folder / name, digests[name]
                    ),
                    digests,
                ):
                    pass

        name = key.rpartition("/")[2]
        return self.cache.fetch(CachedTree(name, marker.bytes, digests), download)

    def delete(self, key: str) -> None:
        """Delete the marker, and then its files.

        Files of other attempts stay: another writer may be uploading the same tree.
        """
        stored = self.store.read(f"{key}/{MARKER}")
        if stored is None:
            return
        try:
            prefix = f"{key}/{TreeMarker.model_validate_json(stored.data).attempt}"
        except ValidationError:  # damaged: any file may be of this tree
            prefix = key
        self.store.delete(f"{key}/{MARKER}")
        self.store.delete_prefix(prefix)


def _missing(uri: str) -> InputError:
    return InputError(f"{uri}: nothing is published there. Name another one, or publish it.")


def _damaged(uri: str, path: str) -> StorageError:
    return StorageError(
        f"{uri}: is damaged ({path} is missing or changed). Delete it and publish it again."
    )
