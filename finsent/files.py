"""Files that are whole or absent: staging directories, atomic writes, digests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from finsent.disk import storing
from finsent.errors import InputError

_STAGING = ".staging-"
_LOCK = ".lock"
_ABANDONED = 7 * 24 * 3600.0  # seconds without a change
_LOOK = 0.05  # seconds between two looks at what is about to go


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with one spelling for one value, for digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """SHA-256 of `canonical_json(value)`, as hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: readers see the old one or the new one, never a part.

    Raises:
        DiskError: it cannot be written.
    """
    with staged_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON as `write_text` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_lines(path: Path, lines: bytes) -> None:
    """Append complete lines, or nothing where they find no room.

    Raises:
        DiskError: it cannot be written.
    """
    with storing(path), path.open("ab", buffering=0) as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # another thread must not append what is cut off
        size = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(lines)
            while rest:  # where the room ends, fewer bytes are written before the error
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(size)
            raise


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the directory is incomplete or not ours") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); the file is damaged") from None


def fsync_file(path: Path) -> None:
    """Wait until a file's bytes are on its disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def exclusive(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a directory.

    Args:
        wait: until another process releases the lock; else do without it.

    Yields:
        Whether no other process holds the lock, as far as the file system has locks.
    """
    directory = os.open(path, os.O_RDONLY)
    try:
        is_free = True
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            is_free = False
        except OSError:  # a file system without locks
            pass
        yield is_free
    finally:
        os.close(directory)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name by a hard link, or copy it where the file system cannot link.

    Both names may share their bytes afterwards: neither file may be written in place.
    """
    try:
        os.link(source.resolve(), target)  # `os.link` would link a symbolic link itself
    except OSError:  # another file system, no links there, too many links, or not allowed
        shutil.copyfile(source, target)


def make_dir(path: Path, field: str) -> Path:
    """Create a directory that a setting names, or say which setting to change.

    Raises:
        InputError: the place cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"{_STAGING}probe-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{field}={str(path)!r}: cannot write there ({error.strerror}); "
            f"set {field} to a directory that you may write"
        ) from None
    return path


# --- staging ------------------------------------------------------------------------------------


@contextmanager
def staged_file(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A name for a new file that replaces `path` when the block succeeds.

    When the block fails, the new file is removed.

    Args:
        folder: of the new file, on the same file system; None: that of `path`.

    Raises:
        DiskError: it cannot be written.
    """
    temporary = (folder or path.parent) / f"{_STAGING}{path.name}-{uuid.uuid4().hex[:8]}"
    with storing(path):
        try:
            yield temporary
            fsync_file(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def staged_dir(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary sibling of `final` that becomes `final` by rename when the block succeeds.

    When the block fails or is interrupted, the temporary directory is removed. When another
    process publishes `final` first, ours is dropped: a content-addressed directory has one content.
    Leftovers of processes that died without cleaning up are swept first.

    Args:
        replace: put ours in the place of a `final` that is there; for a moment neither is.

    Raises:
        DiskError: it cannot be written.
    """
    with storing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final.parent)
        with _staged(final, replace) as staging:
            yield staging


@contextmanager
def _staged(final: Path, replace: bool) -> Iterator[Path]:
    temporary = final.parent / f"{_own_prefix()}{uuid.uuid4().hex[:8]}"
    old = temporary.with_name(f"{temporary.name}old")
    with _locked(_lock_of(temporary)):  # before it is there, until it is gone
        temporary.mkdir()
        try:
            yield temporary
            if replace and final.is_dir():
                final.rename(old)
            try:
                temporary.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
        finally:
            for left in (temporary, old):
                shutil.rmtree(left, ignore_errors=True)


def _lock_of(staging: Path) -> Path:
    # Beside it, since all that is in it gets published.
    return staging.with_name(staging.name + _LOCK)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a new file's lock, which goes with the process, however that ends."""
    with path.open("x") as stream:
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield
        finally:
            path.unlink(missing_ok=True)


def sweep_below(folder: Path, calm: float, timeout: float) -> None:
    """Remove at once what processes of this host left below a folder that died as they wrote.

    Args:
        calm: seconds to look again, for those that have still to die.
        timeout: seconds to wait for those that write.
    """
    begun = time.monotonic()
    while True:
        staged = [*_staged_below(folder)]
        for parent in {path.parent for path in staged}:
            _sweep(parent)
        writing = any(_is_locked(_lock_of(path)) for path in staged)
        if time.monotonic() - begun >= (timeout if writing else calm):
            return
        time.sleep(_LOOK)


def _staged_below(folder: Path) -> Iterator[Path]:
    for top, folders, files in os.walk(folder):  # which minds nothing that vanishes meanwhile
        yield from (Path(top, name) for name in (*folders, *files) if name.startswith(_STAGING))
        folders[:] = [name for name in folders if not name.startswith(_STAGING)]


def _sweep(parent: Path) -> None:
    """Remove what processes left that died while they wrote (killed, power cut)."""
    for left in parent.glob(f"{_STAGING}*"):
        if not _is_dead(left):
            continue
        shutil.rmtree(left, ignore_errors=True)
        for file in (left, _lock_of(left)):
            with suppress(OSError):  # a directory that is not ours
                file.unlink(missing_ok=True)


def _is_dead(left: Path) -> bool:
    """Whether nobody writes to it any more.

    On this host a lock says so, in whatever container its owner runs. What has no lock, or comes
    from another host, whose locks may not show here, goes by its age.
    """
    lock = left if left.name.endswith(_LOCK) else _lock_of(left)
    held = _is_locked(lock)
    if held is False and lock != left and left.name.startswith(_own_prefix()):
        return True
    return not held and _is_old(left)


def _own_prefix() -> str:
    return f"{_STAGING}{socket.gethostname()}-"


def _is_locked(path: Path) -> bool | None:
    """Whether somebody holds a file's lock; None where nothing says."""
    try:
        with path.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, somebody else's, or no locks in this file system
        return None
    return False


def _is_old(path: Path) -> bool:
    """Whether nothing in it has changed for long."""
    try:
        newest = max(p.stat().st_mtime for p in (path, *path.rglob("*")))
    except OSError:  # somebody is at work in it
        return False
    return time.time() - newest > _ABANDONED
