"""What keeps a job from writing: a full disk, a quota, a limit, a read-only or closed place.

Each becomes one line that names the setting, the place and the remedy. Libraries report these in
forms of their own, and some of them drop the number of the error.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finsent.errors import InputError, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_HANDLES = (errno.EMFILE, errno.ENFILE)
_BROKEN = (errno.EIO, errno.ESTALE)
_ALWAYS = (*_FULL, errno.EFBIG, errno.EROFS, *_HANDLES, *_BROKEN)
_WITH_PATH = (errno.EACCES, errno.EPERM)  # without a path they are of a port or a process

_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors, tokenizers
_WORDS = {
    **{os.strerror(number): number for number in (*_FULL, errno.EFBIG, errno.EROFS)},
    "database or disk is full": errno.ENOSPC,  # SQLite
    "attempt to write a readonly database": errno.EROFS,
    "disk I/O error": errno.EIO,
}
_RAY_FULL = "local disk's utilization is over capacity"  # Ray, where it cannot spill
_NO_TEMPORARY = "No usable temporary directory"  # Python's tempfile, where it cannot write
# What the streams of C++ say, in OpenVINO and PyTorch, whatever has ended the writing.
_STREAM = re.compile(r"iostream error|inline_container\.cc|PytorchStreamWriter failed")
_READER = "PytorchStreamReader"  # the same, of a damaged file that is read
# An absolute path in a sentence, but not the line of a source, which C++ and Python name.
_PATH = re.compile(r"(?<![\w/:.])/[\w.+-]+(?:/[\w.+-]+)+(?<![.,:])")
_SOURCES = (".py", ".cc", ".cpp", ".cu", ".c", ".h", ".hpp", ".rs")
_STAGING = ".staging-"
_MB = 1e6
_AMPLE = 20e9  # bytes; no file that a job writes is larger
_MIN_FILES = 1000  # that a file system must still hold for room to be ample


class DiskError(InputError, OSError):
    """A place cannot be written.

    An `OSError` for those who can do without the file, one line for the user of a job.
    """

    def __init__(
        self,
        number: int,
        place: Path | str | None,
        field: str | None = None,
        free: int | None = None,
        needed: int | None = None,
    ) -> None:
        """Compose the line.

        Args:
            number: of the error, as in `errno`.
            place: what was written; None: not known.
            field: the setting that names the place; None: not known yet.
            free: bytes that are free there.
            needed: bytes that the files take.
        """
        super().__init__(number, os.strerror(number))
        self.place, self.field, self.free, self.needed = place, field, free, needed

    @property
    def plain(self) -> list[int | str | None]:
        """The arguments, JSON-able."""
        place = None if self.place is None else str(self.place)
        return [self.number, place, self.field, self.free, self.needed]

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskError, tuple(self.plain)

    @property
    def number(self) -> int:
        """The number of the error, as in `errno`."""
        assert self.errno is not None
        return self.errno

    @property
    def is_full(self) -> bool:
        """Whether the place has no room."""
        return self.number in _FULL

    @property
    def is_of_rights(self) -> bool:
        """Whether this user may not use a place that others may use."""
        return self.number in _WITH_PATH

    def at(self, place: Path) -> DiskError:
        """Return the error with the place that was to be made."""
        return DiskError(self.number, place, self.field, self.free, self.needed)

    def named(self, field: str, place: Path | str | None = None) -> DiskError:
        """Return the error with the setting that names its place, and with what is free there.

        Args:
            place: where the error does not know its own.
        """
        place, free = self.place or place, self.free
        if free is None and place and self.number == errno.ENOSPC:
            free = free_bytes(Path(place))
        return DiskError(self.number, place, field, free, self.needed)

    def __str__(self) -> str:
        named = [self.field or "", repr(str(self.place)) if self.place else ""]
        head = "=".join(filter(None, named)) or ("ulimit" if self.errno in _HANDLES else "disk")
        return f"{head}: {os.strerror(self.number)}{self._figures()}. {self._remedy()}"

    def _figures(self) -> str:
        if self.errno == errno.EFBIG:
            limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
            return "" if limit == resource.RLIM_INFINITY else f" (at most {_mb(limit)} per file)"
        if self.errno in _HANDLES:
            return f" (at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} per process)"
        if self.free is None:
            return ""
        more = "more is" if self.needed is None else f"about {_mb(self.needed)}"
        return f" ({_mb(self.free)} free, {more} needed)"

    def _remedy(self) -> str:
        other = f", or set {self.field} to another place" if self.field else ""
        if self.errno in _HANDLES:
            return "Raise the limit by `ulimit -n`."
        if self.errno == errno.EFBIG:
            return f"Raise the limit by `ulimit -f`{other}."
        if self.errno in _CLOSED:
            return f"Let this user read and write there{other}."
        if self.errno in _BROKEN:
            return f"Check the disk or its mount{other}."
        return f"Free some space {'there' if self.place else 'on it'}{other}."


def _mb(count: int) -> str:
    return f"{count / _MB:.1f} MB"


# --- recognizing --------------------------------------------------------------------------------


def disk_error(error: BaseException, *, writes: bool = False) -> DiskError | None:
    """Return what an error, or one that it wraps, says of a place that cannot be written; or None.

    Args:
        error: of Python, or of a library; Ray wraps what its workers raise. An error for the user
            is what it says, whatever it was made from.
        writes: whether it comes from what writes files and reads none that may be damaged.
    """
    chain = []
    for each in causes(error):
        if isinstance(getattr(each, "cause", None), BaseException):
            continue  # Ray's wrapper: of the same classes, without the attributes
        if isinstance(each, DiskError):
            return each
        if isinstance(each, UserError):
            break
        chain.append(each)
    of_python = (each for each in chain if isinstance(each, OSError) and each.errno is not None)
    for each in of_python:
        path = each.filename2 or each.filename  # of a copy: its target
        if each.errno in _ALWAYS or (each.errno in _WITH_PATH and path):
            assert each.errno is not None
            place = os.fsdecode(path) if path else _path_in(str(each), os.strerror(each.errno))
            return DiskError(each.errno, place)
    said = (_said(str(each), writes) for each in chain)
    return next((found for found in said if found is not None), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it wraps, also what crossed processes by Ray."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        current = queue.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        failures = getattr(current, "worker_failures", None)  # Ray Train's
        queue += [current.__cause__, current.__context__, getattr(current, "cause", None)]
        queue.append(getattr(current, "controller_failure", None))
        queue += list(failures.values()) if isinstance(failures, dict) else []


def _said(text: str, writes: bool) -> DiskError | None:
    """Return the error that a library describes, or None."""
    if _RAY_FULL in text:
        return DiskError(errno.ENOSPC, None, "RAY_TMPDIR")
    if _NO_TEMPORARY in text:
        free = free_bytes(temporary_root())
        is_full = free is not None and free < _MB
        number = errno.ENOSPC if is_full else errno.EACCES
        return DiskError(number, temporary_root(), "TMPDIR", free if is_full else None)
    if found := _RUST.search(text):
        number = int(found[1])
        return DiskError(number, _path_in(text, found[0])) if number in _ALWAYS else None
    if writes and _STREAM.search(text) and _READER not in text:
        return DiskError(_unsaid(), None)
    spoken = next((words for words in _WORDS if words in text), None)
    return None if spoken is None else DiskError(_WORDS[spoken], _path_in(text, spoken))


def _path_in(text: str, words: str) -> str | None:
    """Return the path in the line that has the words; of a copy, its target."""
    line = next((line for line in text.splitlines() if words in line), "")
    paths = [path for path in _PATH.findall(line) if not path.endswith(_SOURCES)]
    return paths[-1] if paths else None


def _unsaid() -> int:
    """Return what most likely ends a stream that does not say."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return errno.ENOSPC if limit == resource.RLIM_INFINITY else errno.EFBIG


# --- naming -------------------------------------------------------------------------------------


@contextmanager
def storing(place: Path, field: str | None = None, *, reads: bool = False) -> Iterator[None]:
    """Say of a place that it cannot be written, and why; other errors pass.

    Args:
        field: the setting that names the place; None: a caller knows.
        reads: whether the block reads files of other places, too, which may be on a broken disk.

    Raises:
        DiskError: it is full, a quota or a limit is reached, or it is closed to this user.
    """
    try:
        yield
    except Exception as error:
        found = disk_error(error, writes=True)
        if found is None or found.field or not _is_of(found, place, reads):
            raise
        raise (found.named(field, place) if field else found.at(place)) from error


def _is_of(error: DiskError, place: Path, reads: bool) -> bool:
    """Whether an error is of what is written to a place, as far as can be told."""
    if error.place is not None:
        return _is_below(Path(error.place).absolute(), place.absolute(), error.number)
    if error.number == errno.ENOSPC:  # else another place is full, such as one of a library's own
        return not is_ample(place)
    return not (reads and error.number in _BROKEN)


def _is_below(path: Path, place: Path, number: int) -> bool:
    """Whether a path is in a place, has a staging name next to it, or is a folder to make for it.

    Both are absolute.
    """
    if path.is_relative_to(place):
        return True
    if path.is_relative_to(place.parent):
        names = path.relative_to(place.parent).parts
        if any(name.startswith(_STAGING) for name in names):
            return True
    return number not in _BROKEN and place.is_relative_to(path)


def is_ample(place: Path) -> bool:
    """Whether a place has room for whatever a job writes there."""
    for folder in (place, *place.parents):
        try:
            mode, found = folder.stat().st_mode, os.statvfs(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return False
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return False  # a device
        has_files = not found.f_files or found.f_favail >= _MIN_FILES
        return has_files and found.f_bavail * found.f_frsize >= _AMPLE
    return False


def temporary_root() -> Path:
    """Return where libraries put temporary files.

    `tempfile.gettempdir` writes a file to choose it, and where that fails, chooses another one.
    """
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return Path(next(filter(None, named), "/tmp"))


def free_bytes(place: Path) -> int | None:
    """Return what this user may still write to the file system of a place; None: not known."""
    for folder in (place, *place.parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def check_room(place: Path, needed: int, field: str) -> None:
    """Fail early where a place clearly has less room than is needed.

    Args:
        needed: bytes, a low estimate.

    Raises:
        DiskError: it has.
    """
    free = free_bytes(place)
    if free is not None and free < needed:
        raise DiskError(errno.ENOSPC, place, field, free, needed)


def field_of(place: Path | str | None, places: Mapping[str, Path]) -> tuple[str, Path] | None:
    """Return the setting, and its value, whose directory holds a place.

    Args:
        place: None: not known; then the setting whose file system has the least room, and no ample
            room.
        places: directories by the settings that name them.
    """
    if place is None:
        free = {field: free_bytes(path) for field, path in places.items()}
        known = {
            field: count
            for field, count in free.items()
            if count is not None and not is_ample(places[field])
        }
        scarce = min(known, key=lambda field: known[field], default=None)
        return None if scarce is None else (scarce, places[scarce])
    path = Path(place).absolute()
    holders = [item for item in places.items() if path.is_relative_to(item[1].absolute())]
    return max(holders, key=lambda item: len(item[1].parts), default=None)
