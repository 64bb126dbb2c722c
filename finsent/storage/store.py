"""The interface of a store of objects by key, and its errors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from finsent.errors import InputError


class StorageError(InputError):
    """An object store refuses, does not answer, or returns damaged bytes."""


@dataclass(frozen=True)
class StoredObject:
    """The bytes of an object, and the ETag that a conditional write names."""

    data: bytes
    etag: str


@dataclass(frozen=True)
class ObjectInfo:
    """An entry of a listing."""

    key: str  # relative to the store's root
    bytes: int
    modified: datetime


class Store(Protocol):
    """Objects by key. Keys are relative paths with `/`. Every write is atomic.

    All methods raise `StorageError` or `DiskError` when the store cannot be used.
    """

    def locate(self, key: str) -> str:
        """Return path or URI of an object for messages, without options."""

    def read(self, key: str) -> StoredObject | None:
        """Return an object; None: there is no such object."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes of an object.

        Raises:
            InputError: there is no such object, or it is shorter.
        """

    def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below `PREFIX/`, sorted by key; an empty prefix is the root."""

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names directly below `PREFIX/` that have objects below them, sorted."""

    def put(self, key: str, data: bytes) -> str:
        """Create or replace an object, and return its ETag."""

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        """Create an object and return its ETag; None: another object exists."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace the object of this ETag and return the new ETag; None: the ETag has changed."""

    def upload(self, path: Path, key: str) -> None:
        """Create or replace an object with the bytes of a file."""

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        """Write an object to a local file.

        Args:
            sha256: of the bytes, which are compared with it; None: not known.

        Raises:
            InputError: there is no such object, or its bytes differ.
        """

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""

    def delete_prefix(self, prefix: str) -> None:
        """Delete all objects below `PREFIX/`."""


def below(prefix: str) -> str:
    """Return a prefix with its `/`; an empty prefix stays empty."""
    stripped = prefix.strip("/")
    return f"{stripped}/" if stripped else ""
