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
    "local disk's utilization is over capacity": errno.ENOSPC,  # Ray, where it cannot spill
}
# What the streams of C++ say, in OpenVINO and PyTorch, whatever has ended the writing or reading.
_STREAM = re.compile(r"iostream error|inline_container\.cc|PytorchStreamWriter failed")
_MB = 1e6


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
        return f"Free some space there{other}."


def _mb(count: int) -> str:
    return f"{count / _MB:.1f} MB"


# --- recognising --------------------------------------------------------------------------------


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
            return DiskError(each.errno, path if path is None else os.fsdecode(path))
    numbers = (_number(str(each), writes) for each in chain)
    return next((DiskError(number, None) for number in numbers if number in _ALWAYS), None)


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


def _number(text: str, writes: bool) -> int:
    """Return the number of the error that a library describes, or 0."""
    if found := _RUST.search(text):
        return int(found[1])
    if writes and _STREAM.search(text):
        return _unsaid()
    return next((number for words, number in _WORDS.items() if words in text), 0)


def _unsaid() -> int:
    """Return what most likely ends a stream that does not say."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return errno.ENOSPC if limit == resource.RLIM_INFINITY else errno.EFBIG


# --- naming -------------------------------------------------------------------------------------


@contextmanager
def storing(place: Path, field: str | None = None) -> Iterator[None]:
    """Say of a place that it cannot be written, and why; other errors pass.

    Args:
        field: the setting that names the place; None: a caller knows.

    Raises:
        DiskError: it is full, a quota or a limit is reached, or it is closed to this user.
    """
    try:
        yield
    except Exception as error:
        found = disk_error(error, writes=True)
        if found is None or found.field or not _is_below(found.place, place):
            raise
        raise (found.named(field, place) if field else found.at(place)) from error


def _is_below(path: Path | str | None, place: Path) -> bool:
    """Whether a path is what is written to a place, maybe under a staging name next to it."""
    return path is None or Path(path).absolute().is_relative_to(place.absolute().parent)


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
        place: None: not known; then the setting whose file system has the least room.
        places: directories by the settings that name them.
    """
    if place is None:
        free = {field: free_bytes(path) for field, path in places.items()}
        known = {field: count for field, count in free.items() if count is not None}
        scarce = min(known, key=lambda field: known[field], default=None)
        return None if scarce is None else (scarce, places[scarce])
    path = Path(place).absolute()
    holders = [item for item in places.items() if path.is_relative_to(item[1].absolute())]
    return max(holders, key=lambda item: len(item[1].parts), default=None)
