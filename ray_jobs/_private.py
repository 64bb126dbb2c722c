"""Temporary directories of this user alone, with paths that are short enough for sockets."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from finsent.errors import InputError
from ray_jobs._orphans import is_own

RAY_DIRECTORY = "finsent-ray"  # of a local Ray's files
_SOCKET_PATH = 107  # characters that a socket's path has at most


def temporary_directory(below: int) -> Path:
    """Return the system's directory for temporary files; /tmp where sockets need a shorter path.

    Args:
        below: characters of the longest path of a socket from that directory on.
    """
    usual = tempfile.gettempdir()
    return Path(usual if len(os.fsencode(usual)) + below <= _SOCKET_PATH else "/tmp")


def private_name(name: str) -> str:
    """Return the name of this user's directory."""
    return f"{name}-{os.geteuid()}"


def private_directory(name: str, below: int) -> Path:
    """Make this user's directory of mode 0700, or return the existing one.

    Args:
        name: of the directory; the user's id is added.
        below: characters of the longest path of a socket from the directory on.

    Raises:
        InputError: it belongs to another user, or other users may enter it.
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
