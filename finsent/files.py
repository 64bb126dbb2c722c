"""Files that are whole or absent: staging directories, atomic writes, digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finsent.errors import InputError

_STAGING = ".staging-"


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
    """Write UTF-8 atomically: readers see the old file or the new one, never a part."""
    temporary = path.with_name(f"{_STAGING}{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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


@contextmanager
def storing(place: Path, field: str) -> Iterator[None]:
    """Tell the owner of a place that it is full; other errors pass.

    Raises:
        InputError: no space is left, a quota or a file size limit is reached, or it is read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        raise InputError(
            f"{field}: writing to {str(place)!r} failed ({os.strerror(error.errno)}); free some "
            f"space there, or set {field} to another place"
        ) from None


@contextmanager
def staged_dir(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary sibling of `final` that becomes `final` by rename when the block succeeds.

    When the block fails or is interrupted, the temporary directory is removed. When another
    process publishes `final` first, ours is dropped: a content-addressed directory has one content.
    Leftovers of processes that died without cleaning up are swept first.

    Args:
        replace: put ours in the place of a `final` that is there; for a moment neither is.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent)
    name = f"{_STAGING}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary, old = final.parent / name, final.parent / f"{name}old"
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
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove staging directories whose process on this host is gone (killed, power cut)."""
    for left in parent.glob(f"{_STAGING}*"):
        host, _, pid = left.name.removeprefix(_STAGING).rpartition("-")[0].rpartition("-")
        ours = host == socket.gethostname() and pid.isdigit() and Path("/proc/self").exists()
        if ours and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
