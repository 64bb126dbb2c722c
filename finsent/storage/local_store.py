"""A store in a local directory, or in a directory that machines share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256 as new_sha256
from pathlib import Path

from finsent.disk import translate_disk_errors
from finsent.errors import InputError
from finsent.files import STAGING, directory_lock, sha256_file, staged_file
from finsent.storage.store import ObjectInfo, StoredObject


@dataclass(frozen=True)
class LocalStore:
    """Objects are files. Writers take turns by a lock of the file's directory."""

    root: Path
    field: str  # the setting that names the root

    def locate(self, key: str) -> str:
        """Return the path of an object."""
        return str(self.root / key)

    def read(self, key: str) -> StoredObject | None:
        """Return a file's bytes; None: there is no such file."""
        path = self.root / key
        try:
            with translate_disk_errors(path, self.field):
                data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return StoredObject(data, _etag(data))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes of a file."""
        path = self._existing(key)
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
        if len(data) != length:
            raise InputError(f"{path}: has no {length} bytes from byte {start}. It is damaged.")
        return data

    def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the files below a directory, without those that are being written."""
        infos = []
        for folder, names, files in os.walk(self.root / prefix):
            names[:] = [name for name in names if not name.startswith(STAGING)]
            infos += [
                info
                for name in files
                if not name.startswith(STAGING) and (info := self._info(Path(folder, name)))
            ]
        return sorted(infos, key=lambda info: info.key)

    def _info(self, path: Path) -> ObjectInfo | None:
        try:
            status = path.stat()
        except FileNotFoundError:  # deleted meanwhile
            return None
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return ObjectInfo(path.relative_to(self.root).as_posix(), status.st_size, modified)

    def list_folders(self, prefix: str) -> list[str]:
        """Return the names of the directories in a directory."""
        try:
            with os.scandir(self.root / prefix) as entries:
                names = [entry.name for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if not name.startswith(STAGING))

    def put(self, key: str, data: bytes) -> str:
        """Create or replace a file."""
        with self._locked(key) as path:
            return _write(path, data)

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        """Create a file; None: it exists."""
        with self._locked(key) as path:
            return None if path.exists() else _write(path, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace a file of this content; None: the content has changed."""
        with self._locked(key) as path:
            stored = self.read(key)
            if stored is None or stored.etag != etag:
                return None
            return _write(path, data)

    def upload(self, path: Path, key: str) -> None:
        """Copy a file into the store."""
        with self._locked(key) as target, staged_file(target) as temporary:
            shutil.copyfile(path, temporary)

    def download(self, key: str, path: Path, sha256: str | None = None) -> None:
        """Copy a file out of the store."""
        source = self._existing(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path) as temporary:
            shutil.copyfile(source, temporary)
            if sha256 is not None and sha256_file(temporary) != sha256:
                raise InputError(f"{source}: does not match its SHA-256. The file is damaged.")

    def delete(self, key: str) -> None:
        """Delete a file, if it exists."""
        with translate_disk_errors(self.root / key, self.field):
            (self.root / key).unlink(missing_ok=True)

    def delete_prefix(self, prefix: str) -> None:
        """Delete a directory, if it exists."""
        with translate_disk_errors(self.root / prefix, self.field):
            try:
                shutil.rmtree(self.root / prefix)
            except FileNotFoundError:
                return

    def _existing(self, key: str) -> Path:
        path = self.root / key
        if not path.is_file():
            raise InputError(f"{path}: no such file. It was deleted, or never stored.")
        return path

    @contextmanager
    def _locked(self, key: str) -> Iterator[Path]:
        """Yield a key's path while no other process writes to its directory."""
        path = self.root / key
        with translate_disk_errors(path, self.field):
            path.parent.mkdir(parents=True, exist_ok=True)
            with directory_lock(path.parent, wait=True):
                yield path


def _write(path: Path, data: bytes) -> str:
    with staged_file(path) as temporary:
        temporary.write_bytes(data)
    return _etag(data)


def _etag(data: bytes) -> str:
    return new_sha256(data).hexdigest()
