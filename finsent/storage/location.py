"""A place below a root: a local directory, or a prefix of a bucket."""

from __future__ import annotations

import dataclasses
import os
import uuid
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from finsent.errors import InputError
from finsent.extras import require
from finsent.files import make_dir
from finsent.storage.cache import LocalCache
from finsent.storage.config import StorageConfig
from finsent.storage.local_store import LocalStore
from finsent.storage.store import StorageError, Store
from finsent.storage.trees import LocalTrees, ObjectTrees, Trees
from finsent.uris import parse


def _defaults() -> StorageConfig:
    return StorageConfig()


@dataclass(frozen=True)
class Location:
    """A local directory, or a prefix of a bucket. Can be pickled: a node opens its own store."""

    address: str  # absolute path, or URI with its options
    field: str = "storage.root"  # the setting that names it, for messages
    config: StorageConfig = dataclasses.field(default_factory=_defaults, compare=False, repr=False)
    # The value of the setting, for messages; None: the address.
    configured: str | None = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def at(
        cls, root: str | Path, name: str = "storage.root", config: StorageConfig | None = None
    ) -> Location:
        """Return the location of a root.

        Args:
            root: a URI, or a path. Inside a Ray job a relative path is relative to ~/finsent,
                because Ray deletes the job's working directory at its end.
            name: the setting that names the root.
            config: cache and retries; None: the defaults.
        """
        is_uri = parse(str(root)) is not None
        address = str(root) if is_uri else str(_resolve(root))
        return cls(address, name, config or _defaults(), address)

    def __truediv__(self, name: str) -> Location:
        uri = parse(self.address)
        if uri is None:
            return replace(self, address=str(Path(self.address, name)))
        path = f"{uri.path.rstrip('/')}/{name}"
        return replace(self, address=f"{uri.root}{path}{uri.tail}")

    def split(self) -> tuple[Location, str]:
        """Return the location above, and the last name."""
        uri = parse(self.address)
        if uri is None:
            path = Path(self.address)
            return replace(self, address=str(path.parent)), path.name
        above, _, name = uri.path.rstrip("/").rpartition("/")
        return replace(self, address=f"{uri.root}{above}{uri.tail}"), name

    def __str__(self) -> str:
        uri = parse(self.address)
        return self.address if uri is None else uri.redacted

    @property
    def _setting(self) -> str:
        """Field and value of the setting, for messages about an object store."""
        uri = parse(self.configured or self.address)
        assert uri is not None
        return f"{self.field}={uri.redacted!r}"

    @property
    def is_local(self) -> bool:
        """Whether the location is a directory."""
        return parse(self.address) is None

    @property
    def path(self) -> Path:
        """The local directory.

        Raises:
            InputError: the location is in an object store.
        """
        if not self.is_local:
            raise InputError(
                f"{self._setting}: this job needs a directory. Set {self.field} to one."
            )
        return Path(self.address)

    @cached_property
    def store(self) -> Store:
        """The records and files here, by key."""
        if self.is_local:
            return LocalStore(self.path, self.field)
        require("obstore", self._setting, f"set {self.field} to a directory")
        # 30 ms, and an extra: most roots are directories.
        from finsent.storage.object_store import ObjectStore

        configured = self.configured or self.address
        return ObjectStore(self.address, self.field, self.config.retry_seconds, configured)

    @property
    def cache(self) -> LocalCache:
        """The local copies of what an object store holds."""
        folder = Path(self.config.cache_dir).expanduser().absolute()
        return LocalCache(folder, int(self.config.cache_gb * 1e9))

    @property
    def trees(self) -> Trees:
        """The immutable directories here, by key."""
        if self.is_local:
            return LocalTrees(self.path, self.field)
        return ObjectTrees(self.store, self.cache)

    def check_writable(self) -> None:
        """Create the directory, or write a probe to the bucket, so that a wrong root fails early.

        Raises:
            InputError: it cannot be created or written, or the bucket's server ignores the
                conditions of writes.
        """
        if self.is_local:
            make_dir(self.path, self.field)
            return
        probe = f".probe-{uuid.uuid4().hex}"
        has_conditions = _has_conditions(self.store, probe)
        self.store.delete(probe)
        if not has_conditions:
            raise StorageError(
                f"{self._setting}: the server ignores the conditions of writes, so "
                "versions and aliases of writers at the same time would be lost. Use a server "
                f"with If-None-Match and If-Match, or set {self.field} to a directory."
            )


def _has_conditions(store: Store, key: str) -> bool:
    """Return whether a new object is created once, and replaced by its current ETag alone."""
    first = store.put_if_absent(key, b"1")
    if first is None or store.put_if_absent(key, b"2") is not None:
        return False
    is_replaced = store.put_if_match(key, b"3", first) is not None
    return is_replaced and store.put_if_match(key, b"4", first) is None


def as_location(root: Path | str | Location, name: str) -> Location:
    """Return the location of a path or URI; a location is returned as it is.

    Args:
        name: the setting that names the root, for messages.
    """
    return root if isinstance(root, Location) else Location.at(root, name)


def _resolve(name: str | Path) -> Path:
    path = Path(name).expanduser()
    if not path.is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        path = Path.home() / "finsent" / path
    return path.absolute()
