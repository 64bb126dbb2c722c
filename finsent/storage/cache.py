"""Local copies of immutable directories: by digest, verified, bounded, safe for many processes."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from finsent.disk import translate_disk_errors
from finsent.errors import InputError
from finsent.files import digest, sha256_file, staged_dir

_TREES, _LOCKS = "trees", "locks"
_MAX_ATTEMPTS = 5  # at a damaged copy
_POLL_SECONDS = 0.2
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # such as of NFS without its lock daemon

# Locks of the copies that this process uses. The kernel releases them when the process ends.
_locks_in_use: dict[Path, int] = {}


@dataclass(frozen=True)
class CachedTree:
    """What a copy holds."""

    name: str  # of its directory
    bytes: int
    sha256_by_path: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The identity of the content."""
        return digest([self.name, sorted(self.sha256_by_path.items())])[:32]


@dataclass(frozen=True)
class LocalCache:
    """Copies in `FOLDER/trees/DIGEST/NAME/`. The least recently used copies are deleted first."""

    folder: Path
    max_bytes: int

    def fetch(self, tree: CachedTree, download: Callable[[Path], None]) -> Path:
        """Return the directory of a copy. The copy stays until this process ends.

        Args:
            download: writes the verified files into a directory. Is called where the copy is
                missing or damaged.

        Raises:
            DiskError: the cache cannot be written.
            InputError: the copy stays damaged, or the cache's file system has no locks.
        """
        copy = self.folder / _TREES / tree.digest / tree.name
        with translate_disk_errors(self.folder, "storage.cache_dir"):
            for folder in (_TREES, _LOCKS):
                (self.folder / folder).mkdir(parents=True, exist_ok=True)
            if copy.parent in _locks_in_use and copy.is_dir():
                _touch(copy)
                return copy
            lock = os.open(self._lock_path(tree.digest), os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._fetch(tree, copy, lock, download)
            except BaseException as error:
                os.close(lock)
                if isinstance(error, OSError) and error.errno in _NO_LOCKS:
                    raise InputError(
                        f"storage.cache_dir={str(self.folder)!r}: the file system has no locks, so "
                        "a copy in use could be deleted. Set storage.cache_dir to a local disk."
                    ) from None
                raise
            if _locks_in_use.setdefault(copy.parent, lock) != lock:
                os.close(lock)  # another thread of this process was first
            _touch(copy)
        return copy

    def holds(self, path: Path) -> bool:
        """Return whether a path is the directory of a copy."""
        return path.absolute().parent.parent == self.folder / _TREES

    def _fetch(
        self, tree: CachedTree, copy: Path, lock: int, download: Callable[[Path], None]
    ) -> None:
        """Leave a complete copy, and the lock shared.

        No process waits for an exclusive lock: the users of a copy hold theirs for hours.
        """
        damaged_count = 0
        while True:
            if _flock(lock, fcntl.LOCK_SH):
                if _is_complete(copy, tree):
                    return
                damaged_count += copy.is_dir()
                if damaged_count > _MAX_ATTEMPTS:
                    raise InputError(
                        f"{copy}: is damaged, also after downloads, or while another process uses "
                        "it. End that process, or set storage.cache_dir to another disk."
                    )
                if _flock(lock, fcntl.LOCK_EX):
                    shutil.rmtree(copy, ignore_errors=True)
                    self._make_room(tree.bytes, copy.parent)
                    with staged_dir(copy) as staging:
                        download(staging)
                    continue  # another process may take the lock before it is shared
            fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(random.uniform(_POLL_SECONDS / 2, _POLL_SECONDS))

    def _make_room(self, needed: int, wanted: Path) -> None:
        """Delete unused copies, the least recently used first, until `needed` bytes fit."""
        copies = [path for path in (self.folder / _TREES).glob("*") if path != wanted]
        sizes = {path: _size(path) for path in copies}
        total = sum(sizes.values())
        for path in sorted(copies, key=_last_use):
            if total + needed <= self.max_bytes:
                return
            with self._unused(path.name) as is_unused:
                if is_unused:
                    shutil.rmtree(path, ignore_errors=True)
                    total -= sizes[path]

    @contextmanager
    def _unused(self, digest: str) -> Iterator[bool]:
        """Yield whether no process uses a copy, and keep it so while the block runs."""
        lock = os.open(self._lock_path(digest), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield _flock(lock, fcntl.LOCK_EX)
        finally:
            os.close(lock)

    def _lock_path(self, digest: str) -> Path:
        # Stays when the copy is deleted: a process may wait for it.
        return self.folder / _LOCKS / digest


def _flock(lock: int, operation: int) -> bool:
    """Lock a file without waiting; return whether this process holds the lock."""
    try:
        fcntl.flock(lock, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_complete(copy: Path, tree: CachedTree) -> bool:
    return all(
        (copy / path).is_file() and sha256_file(copy / path) == sha256
        for path, sha256 in tree.sha256_by_path.items()
    )


def _touch(copy: Path) -> None:
    with suppress(OSError):  # another user's cache
        os.utime(copy.parent)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # deleted meanwhile
        return 0.0


def _size(path: Path) -> int:
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):  # deleted meanwhile
                total += Path(folder, name).stat().st_size
    return total
