"""Errors of disks: a full disk, a quota, a limit of the system, a directory without permission.

Each becomes one line that names the setting, the path and the remedy. Libraries report such errors
in their own words, and some of them drop the error number.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finsent.errors import InputError, UserError

_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_CLOSED_ERRORS = (errno.EROFS, errno.EACCES, errno.EPERM)
_HANDLE_ERRORS = (errno.EMFILE, errno.ENFILE)
_HARDWARE_ERRORS = (errno.EIO, errno.ESTALE)
_DISK_ERRORS = (*_FULL_ERRORS, errno.EFBIG, errno.EROFS, *_HANDLE_ERRORS, *_HARDWARE_ERRORS)
_PERMISSION_ERRORS = (errno.EACCES, errno.EPERM)  # without a path, of a port or a process

# Texts of libraries. tests/unit/test_disk_libraries.py provokes each of them.
_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")  # safetensors, tokenizers
_TEXTS = {
    **{os.strerror(number): number for number in (*_FULL_ERRORS, errno.EFBIG, errno.EROFS)},
    "database or disk is full": errno.ENOSPC,  # SQLite
    "attempt to write a readonly database": errno.EROFS,
    "disk I/O error": errno.EIO,
}
_RAY_FULL = "local disk's utilization is over capacity"  # Ray cannot spill objects
_NO_TEMP_DIR = "No usable temporary directory"  # Python's tempfile cannot write
# OpenVINO and PyTorch report any failed write of a C++ stream by these texts.
_STREAM_FAILED = re.compile(r"iostream error|inline_container\.cc|PytorchStreamWriter failed")
_READER_FAILED = "PytorchStreamReader"  # a damaged file, reported by the same texts
# An absolute path in a sentence, except a line of source code, which C++ and Python name.
_PATH = re.compile(r"(?<![\w/:.])/[\w.+-]+(?:/[\w.+-]+)+(?<![.,:])")
_SOURCE_SUFFIXES = (".py", ".cc", ".cpp", ".cu", ".c", ".h", ".hpp", ".rs")

_STAGING = ".staging-"
_MB = 1e6
_AMPLE_BYTES = 20e9  # no file that a job writes is larger
_MIN_FREE_FILES = 1000  # inodes


class DiskError(InputError, OSError):
    """A path cannot be written.

    An `OSError` for callers that can do without the file, one line for the user of a job.
    """

    def __init__(
        self,
        number: int,
        path: Path | str | None,
        field: str | None = None,
        free: int | None = None,
        needed: int | None = None,
    ) -> None:
        """Compose the error's line.

        Args:
            number: as in `errno`.
            path: what was written; None: unknown.
            field: setting that names the path; None: not known yet.
            free: free bytes on the path's file system.
            needed: size of the files in bytes.
        """
        super().__init__(number, os.strerror(number))
        self.path, self.field, self.free, self.needed = path, field, free, needed

    @property
    def arguments(self) -> list[int | str | None]:
        """The constructor's arguments, which JSON can hold."""
        path = None if self.path is None else str(self.path)
        return [self.number, path, self.field, self.free, self.needed]

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskError, tuple(self.arguments)

    @property
    def number(self) -> int:
        """The error number, as in `errno`."""
        assert self.errno is not None
        return self.errno

    @property
    def is_full(self) -> bool:
        """Whether the disk or the quota is full."""
        return self.number in _FULL_ERRORS

    @property
    def is_permission_error(self) -> bool:
        """Whether this user lacks a permission that other users may have."""
        return self.number in _PERMISSION_ERRORS

    def with_path(self, path: Path) -> DiskError:
        """Return the error with another path, e.g. that of the result in place of a part of it."""
        return DiskError(self.number, path, self.field, self.free, self.needed)

    def with_setting(self, field: str, path: Path | str | None = None) -> DiskError:
        """Return the error with the setting that names its path, and with the free bytes there.

        Args:
            path: is used where the error has none.
        """
        path, free = self.path or path, self.free
        if free is None and path and self.number == errno.ENOSPC:
            free = free_bytes(Path(path))
        return DiskError(self.number, path, field, free, self.needed)

    def __str__(self) -> str:
        path = repr(str(self.path)) if self.path else None
        subject = "=".join(filter(None, (self.field, path)))
        if not subject:
            subject = "ulimit" if self.errno in _HANDLE_ERRORS else "disk"
        return f"{subject}: {os.strerror(self.number)}{self._figures()}. {self._remedy()}"

    def _figures(self) -> str:
        if self.errno == errno.EFBIG:
            limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
            return "" if limit == resource.RLIM_INFINITY else f" (at most {_mb(limit)} per file)"
        if self.errno in _HANDLE_ERRORS:
            return f" (at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} per process)"
        if self.free is None:
            return ""
        needed = "more is" if self.needed is None else f"about {_mb(self.needed)}"
        return f" ({_mb(self.free)} free, {needed} needed)"

    def _remedy(self) -> str:
        alternative = f", or set {self.field} to another place" if self.field else ""
        if self.errno in _HANDLE_ERRORS:
            return "Raise the limit by `ulimit -n`."
        if self.errno == errno.EFBIG:
            return f"Raise the limit by `ulimit -f`{alternative}."
        if self.errno in _CLOSED_ERRORS:
            return f"Let this user read and write there{alternative}."
        if self.errno in _HARDWARE_ERRORS:
            return f"Check the disk or its mount{alternative}."
        return f"Free some space {'there' if self.path else 'on it'}{alternative}."


def _mb(byte_count: int) -> str:
    return f"{byte_count / _MB:.1f} MB"


# --- recognizing --------------------------------------------------------------------------------


def find_disk_error(error: BaseException, *, writes: bool = False) -> DiskError | None:
    """Return the disk error that an error is or wraps, or None.

    Args:
        error: of Python, of a library, or of a Ray task. A `UserError` hides the errors that it was
            made from.
        writes: whether the failed code writes files, and reads none that may be damaged.
    """
    chain = []
    for each in iterate_causes(error):
        if isinstance(getattr(each, "cause", None), BaseException):
            continue  # Ray's wrapper has the class of its cause, without its attributes
        if isinstance(each, DiskError):
            return each
        if isinstance(each, UserError):
            break
        chain.append(each)
    return _from_numbers(chain) or _from_texts(chain, writes)


def iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all errors that it wraps, including those of Ray's workers."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        current = queue.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        queue += [current.__cause__, current.__context__, getattr(current, "cause", None)]
        queue.append(getattr(current, "controller_failure", None))
        queue += worker_failures(current)


def worker_failures(error: BaseException) -> list[BaseException]:
    """Return the workers' errors of an error of Ray Train; none for other errors."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", None) or {}
    return [*failures.values()]


def _from_numbers(chain: Iterable[BaseException]) -> DiskError | None:
    for error in chain:
        if not isinstance(error, OSError) or error.errno is None:
            continue
        path = error.filename2 or error.filename  # of a copy: the target
        if error.errno in _DISK_ERRORS or (error.errno in _PERMISSION_ERRORS and path):
            if path:
                return DiskError(error.errno, os.fsdecode(path))
            return DiskError(error.errno, _path_in(str(error), os.strerror(error.errno)))
    return None


def _from_texts(chain: Iterable[BaseException], writes: bool) -> DiskError | None:
    errors = (_from_text(str(error), writes) for error in chain)
    return next((error for error in errors if error is not None), None)


def _from_text(text: str, writes: bool) -> DiskError | None:
    """Return the error that a library's text describes, or None."""
    if _RAY_FULL in text:
        return DiskError(errno.ENOSPC, None, "RAY_TMPDIR")
    if _NO_TEMP_DIR in text:
        return _temp_dir_error()
    if match := _RUST_NUMBER.search(text):
        number = int(match[1])
        return DiskError(number, _path_in(text, match[0])) if number in _DISK_ERRORS else None
    if writes and _STREAM_FAILED.search(text) and _READER_FAILED not in text:
        return DiskError(_likely_stream_error(), None)
    phrase = next((phrase for phrase in _TEXTS if phrase in text), None)
    return None if phrase is None else DiskError(_TEXTS[phrase], _path_in(text, phrase))


def _temp_dir_error() -> DiskError:
    directory = temp_dir()
    free = free_bytes(directory)
    if free is not None and free < _MB:
        return DiskError(errno.ENOSPC, directory, "TMPDIR", free)
    return DiskError(errno.EACCES, directory, "TMPDIR")


def _path_in(text: str, phrase: str) -> str | None:
    """Return the last path in the line with the phrase: of a copy, its target."""
    line = next((line for line in text.splitlines() if phrase in line), "")
    paths = [path for path in _PATH.findall(line) if not path.endswith(_SOURCE_SUFFIXES)]
    return paths[-1] if paths else None


def _likely_stream_error() -> int:
    """Return the likely number of the error that ended a C++ stream, which has none."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return errno.ENOSPC if limit == resource.RLIM_INFINITY else errno.EFBIG


# --- translating --------------------------------------------------------------------------------


@contextmanager
def translate_disk_errors(
    path: Path, field: str | None = None, *, reads: bool = False
) -> Iterator[None]:
    """Raise a `DiskError` for `path` in place of an error of its disk. Other errors pass.

    Args:
        path: file or directory that the block writes.
        field: setting that names the path; None: a caller adds the setting.
        reads: whether the block also reads files elsewhere, which may be on a broken disk.

    Raises:
        DiskError: the disk is full, a quota or a limit is reached, or a permission is missing.
    """
    try:
        yield
    except Exception as error:
        disk_error = find_disk_error(error, writes=True)
        if disk_error is None or disk_error.field or not _concerns(disk_error, path, reads):
            raise
        if field:
            raise disk_error.with_setting(field, path) from error
        raise disk_error.with_path(path) from error


def _concerns(error: DiskError, path: Path, reads: bool) -> bool:
    """Return whether an error is likely one of writing `path`."""
    if error.path is not None:
        return _is_part_of(Path(error.path).absolute(), path.absolute(), error.number)
    if error.number == errno.ENOSPC:  # or another disk is full, e.g. one that a library uses
        return not has_ample_room(path)
    return not (reads and error.number in _HARDWARE_ERRORS)


def _is_part_of(failed: Path, path: Path, number: int) -> bool:
    """Return whether a failed path is in `path`, is staged for it, or is a directory above it.

    Both are absolute. A directory above `path` fails where `path` is created.
    """
    if failed.is_relative_to(path):
        return True
    if failed.is_relative_to(path.parent):
        names = failed.relative_to(path.parent).parts
        if any(name.startswith(_STAGING) for name in names):
            return True
    return number not in _HARDWARE_ERRORS and path.is_relative_to(failed)


# --- free space ---------------------------------------------------------------------------------


def free_bytes(path: Path) -> int | None:
    """Return the bytes that this user may still write to the path's file system, or None."""
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def has_ample_room(path: Path) -> bool:
    """Return whether the path's file system has room for any file that a job writes."""
    for folder in (path, *path.parents):
        try:
            mode, usage = folder.stat().st_mode, os.statvfs(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return False
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return False  # a device
        has_files = not usage.f_files or usage.f_favail >= _MIN_FREE_FILES
        return has_files and usage.f_bavail * usage.f_frsize >= _AMPLE_BYTES
    return False


def check_free_space(path: Path, needed: int, field: str) -> None:
    """Refuse early if a path's file system clearly has less room than needed.

    Args:
        needed: bytes, a low estimate.

    Raises:
        DiskError: fewer bytes are free.
    """
    free = free_bytes(path)
    if free is not None and free < needed:
        raise DiskError(errno.ENOSPC, path, field, free, needed)


# --- settings -----------------------------------------------------------------------------------


def temp_dir() -> Path:
    """Return the directory in which libraries create temporary files.

    `tempfile.gettempdir` writes a file to choose the directory, and chooses another one if that
    fails.
    """
    values = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return Path(next(filter(None, values), "/tmp"))


def find_setting(
    path: Path | str | None, directories: Mapping[str, Path]
) -> tuple[str, Path] | None:
    """Return the setting whose directory holds a path, and that directory, or None.

    Args:
        path: None: unknown. Then the setting whose file system has the least room, unless all have
            ample room.
        directories: by the settings that name them.
    """
    if path is None:
        free = {
            field: count
            for field, directory in directories.items()
            if (count := free_bytes(directory)) is not None and not has_ample_room(directory)
        }
        scarcest = min(free, key=lambda field: free[field], default=None)
        return None if scarcest is None else (scarcest, directories[scarcest])
    absolute = Path(path).absolute()
    holders = [item for item in directories.items() if absolute.is_relative_to(item[1].absolute())]
    return max(holders, key=lambda item: len(item[1].parts), default=None)
