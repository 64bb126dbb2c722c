"""Private temporary directories with paths that are short enough for sockets."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from finsent.errors import InputError
from ray_jobs._orphans import is_own

RAY_DIRECTORY = "finsent-ray"  # of a local Ray's files
_MAX_SOCKET_PATH = 107  # bytes


def temporary_directory(below: int) -> Path:
    """Return the system's directory for temporary files; /tmp where sockets need a shorter path.

    Args:
        below: bytes of the longest path of a socket, from that directory on.
    """
    system_dir = tempfile.gettempdir()
    is_short = len(os.fsencode(system_dir)) + below <= _MAX_SOCKET_PATH
    return Path(system_dir if is_short else "/tmp")


def private_name(name: str) -> str:
    """Return a directory's name with this user's id."""
    return f"{name}-{os.geteuid()}"


def private_directory(name: str, below: int) -> Path:
    """Return this user's directory of mode 0700, which is created where it is missing.

    Args:
        name: of the directory; the user's id is added.
        below: bytes of the longest path of a socket, from the directory on.

    Raises:
        InputError: the directory belongs to another user, or other users may enter it.
    """
    name = private_name(name)
    directory = temporary_directory(len(f"/{name}") + below) / name
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not is_own(directory):
        raise InputError(
            f"ray: {str(directory)!r} is not a directory of this user with mode 0700. Remove it, "
            "or set RAY_TMPDIR to a directory that other users cannot enter."
        )
    return directory
