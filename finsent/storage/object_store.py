"""A store in a bucket: conditional writes, repeated requests and checked reads, by obstore.

obstore binds the Rust crate object_store. Fsspec was no choice: its stores differ in what a
conditional write is, and most have none.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from finsent.errors import InputError
from finsent.files import staged_file
from finsent.storage.object_clients import Client, open_client
from finsent.storage.object_errors import lacks_bucket, may_pass, storage_error
from finsent.storage.store import ObjectInfo, StorageError, StoredObject, below
from finsent.uris import Uri, parse

if TYPE_CHECKING:  # a type that obstore has for checkers alone
    from obstore import UpdateVersion

T = TypeVar("T")

_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.1, 5.0
_PART_BYTES = 8 << 20
_RANGE_BYTES = 16 << 20  # of a download's request


class _TornBodyError(Exception):
    """A response whose bytes are not those of the object."""


@dataclass(frozen=True)
class ObjectStore:
    """Objects in a bucket below a prefix."""

    root: str  # URI
    field: str  # the setting that names the root
    retry_seconds: float
    configured: str  # URI that the setting has, for messages: `root` or a prefix of it

    @cached_property
    def _uri(self) -> Uri:
        uri = parse(self.root)
        assert uri is not None
        return uri

    @cached_property
    def _configured_uri(self) -> Uri:
        uri = parse(self.configured)
        assert uri is not None
        return uri

    @property
    def _client(self) -> Client:
        return open_client(self.root, self.field, self.retry_seconds)

    def locate(self, key: str) -> str:
        """Return the URI of an object, without options."""
        return f"{self._uri.redacted.rstrip('/')}/{key}"

    # --- reads ---

    def read(self, key: str) -> StoredObject | None:
        """Return an object; None: there is no such object."""

        def get() -> StoredObject:
            response = obstore.get(self._client, key)
            data = bytes(response.bytes())
            if len(data) != response.meta["size"]:
                raise _TornBodyError(f"{len(data)} of {response.meta['size']} bytes arrived")
            return StoredObject(data, _token(response.meta))

        try:
            return self._repeat(get)
        except FileNotFoundError:
            return None

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes of an object."""
        size = self._size(key)
        if start + length > size:
            raise InputError(
                f"{self.locate(key)}: has no {length} bytes from byte {start}. It is damaged."
            )
        return self._range(key, start, length)

    def _range(self, key: str, start: int, length: int) -> bytes:
        def get() -> bytes:
            data = bytes(obstore.get_range(self._client, key, start=start, length=length))
            if len(data) != length:
                raise _TornBodyError(f"{len(data)} of {length} bytes arrived")
            return data

        return self._repeat(get) if length else b""

    def _size(self, key: str) -> int:
        try:
            return int(self._repeat(lambda: obstore.head(self._client, key))["size"])
        except FileNotFoundError:
            raise InputError(
                f"{self.locate(key)}: no such object. It was deleted, or never stored."
            ) from None

    def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below a prefix."""
        metas = self._repeat(lambda: obstore.list(self._client, below(prefix) or None).collect())
        infos = (ObjectInfo(m["path"], m["size"], m["last_modified"]) for m in metas)
        return sorted(infos, key=lambda info: info.key)

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix that have objects below them."""
        listed = self._repeat(
            lambda: obstore.list_with_delimiter(self._client, below(prefix) or None)
        )
        return sorted(path.rstrip("/").rpartition("/")[2] for path in listed["common_prefixes"])

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        """Write an object to a local file, in ranges, and compare its digest."""
        path.parent.mkdir(parents=True, exist_ok=True)

        def get() -> None:
            size, received = self._size(key), new_sha256()
            with staged_file(path) as temporary, temporary.open("wb") as file:
                for start in range(0, size, _RANGE_BYTES):
                    data = self._range(key, start, min(_RANGE_BYTES, size - start))
                    received.update(data)
                    file.write(data)
                if sha256 is not None and received.hexdigest() != sha256:
                    raise _TornBodyError("the bytes do not match their SHA-256")

        try:
            self._repeat(get)
        except FileNotFoundError:
            raise InputError(f"{self.locate(key)}: the object was deleted meanwhile.") from None

    # --- writes ---

    def put(self, key: str, data: bytes) -> str:
        """Create or replace an object."""
        return self._repeat(lambda: _token(obstore.put(self._client, key, data)))

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        """Create an object; None: another object exists."""
        return self._put_if(key, data, lambda: obstore.put(self._client, key, data, mode="create"))

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace the object of an ETag; None: the ETag has changed."""
        condition: UpdateVersion = json.loads(etag)
        return self._put_if(key, data, lambda: obstore.put(self._client, key, data, mode=condition))

    def _put_if(self, key: str, data: bytes, put: Callable[[], Mapping[str, Any]]) -> str | None:
        try:
            return self._repeat(lambda: _token(put()))
        except (AlreadyExistsError, PreconditionError):
            # The refused request may repeat one that was carried out, and whose response was lost.
            stored = self.read(key)
            return stored.etag if stored is not None and stored.data == data else None
        except FileNotFoundError:  # some stores refuse an ETag of a deleted object by 404
            return None

    def upload(self, path: Path, key: str) -> None:
        """Create or replace an object with the bytes of a file, in parts."""
        self._repeat(
            lambda: obstore.put(self._client, key, path, chunk_size=_PART_BYTES, max_concurrency=4)
        )

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        self._delete([key])

    def delete_prefix(self, prefix: str) -> None:
        """Delete all objects below a prefix."""
        if keys := [info.key for info in self.list_objects(prefix)]:
            self._delete(keys)

    def _delete(self, keys: list[str]) -> None:
        try:
            self._repeat(lambda: obstore.delete(self._client, keys))
        except FileNotFoundError:
            return

    # --- repeating ---

    def _repeat(self, request: Callable[[], T]) -> T:
        """Make a request, again with jitter while its failure may pass and time is left.

        Raises:
            FileNotFoundError: there is no such object.
            AlreadyExistsError, PreconditionError: a conditional write is refused.
            StorageError: the request failed for good.
        """
        deadline, wait = time.monotonic() + self.retry_seconds, _FIRST_WAIT_SECONDS
        while True:
            try:
                return request()
            except (AlreadyExistsError, PreconditionError):
                raise
            except FileNotFoundError as error:
                if lacks_bucket(error):
                    raise storage_error(error, self._configured_uri, self.field) from None
                raise
            except StorageError:  # of a request inside
                raise
            except (BaseError, _TornBodyError, ConnectionError, TimeoutError) as error:
                if not may_pass(error):
                    raise storage_error(error, self._configured_uri, self.field) from None
                if time.monotonic() + wait > deadline:
                    raise storage_error(
                        error, self._configured_uri, self.field, self.retry_seconds
                    ) from None
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(2 * wait, _MAX_WAIT_SECONDS)


def _token(meta: Mapping[str, Any]) -> str:
    """Return what identifies an object's content: Google compares versions, others ETags."""
    return json.dumps({name: meta[name] for name in ("e_tag", "version") if meta.get(name)})
