"""Temporary directories that only this user can enter, with paths short enough for sockets."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from finsent.errors import InputError

RAY_DIRECTORY = "finsent-ray"  # of a local Ray's files
_MAX_SOCKET_PATH = 107  # characters, the limit of Linux


def temporary_directory(suffix_length: int) -> Path:
    """Return the system's directory for temporary files; /tmp where sockets need a shorter path.

    Args:
        suffix_length: characters of the longest path of a socket from that directory on.
    """
    usual = tempfile.gettempdir()
    is_short = len(os.fsencode(usual)) + suffix_length <= _MAX_SOCKET_PATH
    return Path(usual if is_short else "/tmp")


def private_name(name: str) -> str:
    """Return the name of this user's directory."""
    return f"{name}-{os.geteuid()}"


def private_directory(name: str, suffix_length: int) -> Path:
    """Make this user's directory of mode 0700, or return the existing one.

    Args:
        name: of the directory; the user's id is added.
        suffix_length: characters of the longest path of a socket from the directory on.

    Raises:
        InputError: the directory belongs to another user, or other users may enter it.
    """
    name = private_name(name)
    directory = temporary_directory(len(f"/{name}") + suffix_length) / name
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not is_private(directory):
        raise InputError(
            f"ray: {str(directory)!r} is not a directory of this user with mode 0700. Remove it, "
            "or set RAY_TMPDIR to a directory that other users cannot enter."
        )
    return directory


def is_private(directory: Path) -> bool:
    """Return whether only this user could have written into a directory."""
    status = directory.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o077
    )
