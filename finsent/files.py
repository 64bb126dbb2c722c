"""Files that are complete or absent: atomic writes, staging directories, locks, digests.

Locks are `flock`s of this module and not of the package filelock. The kernel releases both when
their process dies. But filelock locks a file that it creates, so it cannot lock a directory without
leaving a file in a directory whose files are digested, nor test a lock without creating it. On a
file system without locks it uses a marker file or fails, where these functions do without a lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from finsent.disk import translate_disk_errors
from finsent.errors import InputError

STAGING = ".staging-"  # prefix of names that are being written
_LOCK = ".lock"
_ABANDONED_SECONDS = 7 * 24 * 3600.0  # without a change
_POLL_SECONDS = 0.05


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON that is the same for equal values, for digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of `canonical_json(value)`, as hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: readers see the old content or the new, never a part.

    Raises:
        DiskError: the file cannot be written.
    """
    with staged_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically, as `write_text` does."""
    write_text(path, indented_json(value))


def indented_json(value: Any) -> str:
    """Return JSON for people, with a newline at its end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def append_lines(path: Path, lines: bytes) -> None:
    """Append complete lines, or none of them if the disk is full.

    Raises:
        DiskError: the file cannot be written.
    """
    with translate_disk_errors(path), path.open("ab", buffering=0) as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # else another thread's lines could be truncated
        size = file.seek(0, os.SEEK_END)
        try:
            unwritten = memoryview(lines)
            while unwritten:  # on a disk that gets full, a short write precedes the error
                unwritten = unwritten[file.write(unwritten) :]
        except OSError:
            file.truncate(size)
            raise


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file. The directory is incomplete or not one of finsent."
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}). The file is damaged.") from None


def fsync_file(path: Path) -> None:
    """Flush a file's bytes to its disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def directory_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a directory while the block runs.

    Args:
        wait: whether to wait until another process releases the lock. If not, the block runs
            without the lock.

    Yields:
        Whether no other process holds the lock. True on a file system without locks.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        is_free = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            is_free = False
        except OSError:  # a file system without locks
            pass
        yield is_free
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy the file where the file system cannot link.

    Source and target may share their bytes afterwards, so do not write either in place.
    """
    try:
        os.link(source.resolve(), target)  # `os.link` would link a symbolic link itself
    except OSError:  # another file system, no links there, too many links, or not allowed
        shutil.copyfile(source, target)


def link_files(source: Path, paths: Iterable[str], target: Path) -> None:
    """Hard-link or copy files of a directory into another one.

    Args:
        paths: relative to both directories.
    """
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(source / path, target / path)


def make_dir(path: Path, field: str) -> Path:
    """Create a directory that a setting names.

    Raises:
        InputError: the directory cannot be created or written. Names the setting to change.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"{STAGING}probe-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{field}={str(path)!r}: cannot write there ({error.strerror}). "
            f"Set {field} to a directory that you may write."
        ) from None
    return path


# --- staging ------------------------------------------------------------------------------------


@contextmanager
def staged_file(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield the name of a new file, which replaces `path` when the block succeeds.

    When the block fails, the new file is removed.

    Args:
        folder: of the new file, on the file system of `path`; None: the folder of `path`.

    Raises:
        DiskError: the file cannot be written.
    """
    temporary = (folder or path.parent) / f"{STAGING}{path.name}-{uuid.uuid4().hex[:8]}"
    with translate_disk_errors(path):
        try:
            yield temporary
            fsync_file(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def staged_dir(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a staging directory next to `final`, which is renamed to it when the block succeeds.

    When the block fails or is interrupted, the staging directory is removed, and also when another
    process has published `final` first: a content-addressed directory has only one content.
    Staging directories that dead processes left are removed first.

    Args:
        replace: whether to replace an existing `final`; for a moment there is none.

    Raises:
        DiskError: the directory cannot be written.
    """
    with translate_disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final.parent)
        with _staged(final, replace) as staging:
            yield staging


@contextmanager
def scratch_dir(parent: Path) -> Iterator[Path]:
    """Yield a new directory in `parent`, which is removed at the block's end.

    Directories that dead processes left are removed first.

    Raises:
        DiskError: the directory cannot be written.
    """
    with translate_disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        with _locked_staging(parent) as staging:
            yield staging


@contextmanager
def _locked_staging(parent: Path) -> Iterator[Path]:
    staging = parent / f"{_host_prefix()}{uuid.uuid4().hex[:8]}"
    with _new_lock(_lock_path(staging)):  # held from before the directory exists until it is gone
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _staged(final: Path, replace: bool) -> Iterator[Path]:
    with _locked_staging(final.parent) as staging:
        replaced = staging.with_name(f"{staging.name}old")
        try:
            yield staging
            if replace and final.is_dir():
                final.rename(replaced)
            try:
                staging.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(replaced, ignore_errors=True)


def _lock_path(staging: Path) -> Path:
    # Next to the staging directory, whose files are all published.
    return staging.with_name(staging.name + _LOCK)


@contextmanager
def _new_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a new file. The kernel releases the lock when the process ends."""
    with path.open("x") as stream:
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield
        finally:
            path.unlink(missing_ok=True)


def remove_abandoned_below(folder: Path, grace_seconds: float, timeout_seconds: float) -> None:
    """Remove what processes of this host staged below a folder and left when they died.

    Args:
        grace_seconds: how long to wait for processes that are about to die.
        timeout_seconds: how long to wait for processes that still write.
    """
    started = time.monotonic()
    while True:
        staged = [*_staged_below(folder)]
        for parent in {path.parent for path in staged}:
            _remove_abandoned(parent)
        is_writing = any(_is_locked(_lock_path(path)) for path in staged)
        if time.monotonic() - started >= (timeout_seconds if is_writing else grace_seconds):
            return
        time.sleep(_POLL_SECONDS)


def _staged_below(folder: Path) -> Iterator[Path]:
    for top, folders, files in os.walk(folder):  # ignores folders that vanish meanwhile
        yield from (Path(top, name) for name in (*folders, *files) if name.startswith(STAGING))
        folders[:] = [name for name in folders if not name.startswith(STAGING)]


def _remove_abandoned(parent: Path) -> None:
    """Remove staged files and directories whose process died (killed, power cut)."""
    for staged in parent.glob(f"{STAGING}*"):
        if not _is_abandoned(staged):
            continue
        shutil.rmtree(staged, ignore_errors=True)
        for file in (staged, _lock_path(staged)):
            with suppress(OSError):  # another user's directory
                file.unlink(missing_ok=True)


def _is_abandoned(staged: Path) -> bool:
    """Return whether no process writes to a staged file or directory any more.

    On this host its lock decides, in whatever container its process runs. Without a lock, and on
    another host, whose locks may be invisible here, its age decides.
    """
    lock = staged if staged.name.endswith(_LOCK) else _lock_path(staged)
    is_locked = _is_locked(lock)
    if is_locked is False and lock != staged and staged.name.startswith(_host_prefix()):
        return True
    return not is_locked and _is_old(staged)


def _host_prefix() -> str:
    return f"{STAGING}{socket.gethostname()}-"


def _is_locked(path: Path) -> bool | None:
    """Return whether a process holds a file's lock, or None if that cannot be known."""
    try:
        with path.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, another user's file, or a file system without locks
        return None
    return False


def _is_old(path: Path) -> bool:
    """Return whether nothing at or below a path has changed for a week."""
    try:
        newest = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except OSError:  # a process is removing files
        return False
    return time.time() - newest > _ABANDONED_SECONDS
