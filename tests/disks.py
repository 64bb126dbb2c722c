"""Places that cannot be written, by means of the kernel alone."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file of this process, and of those it starts, grow beyond some bytes (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of some bytes, such as 3m, on a new directory."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "finsent-test", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path, left: int = 0) -> Iterator[None]:
    """Take the room of a small file system, but for some bytes."""
    ballast = folder / "ballast"
    size = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - left
    with ballast.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, size)
    try:
        yield
    finally:
        ballast.unlink()
