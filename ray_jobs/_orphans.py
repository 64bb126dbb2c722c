"""End HAProxies that outlived their service, and remove the service's directory.

A service stores HAProxy's files in its own directory and holds the lock of a file there. Each
HAProxy has a record in the directory. The service's watchdog runs this file by its path, with the
standard library only, so that the watchdog starts in milliseconds and needs 10 MB. The watchdog
waits until the service has ended, also by SIGKILL. A service that starts cleans up the directories
of services whose watchdog was killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "finsent-serve-"
LOCK = "lock"  # held by the service
RECORDS = "haproxies"  # one file per HAProxy: its process id, with its start time
_KILL_SECONDS = 5.0  # for a killed process to end
_MAX_START_SECONDS = 3600.0  # between the directory and its lock; usually milliseconds


def start_time(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty: there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if fields[0] in "ZX" else fields[19]


def end_haproxies(directory: Path) -> list[int]:
    """Kill the HAProxies that a directory has records of; return their process ids.

    A process id may have been given to another program since. A process is killed only when its
    start time, its user and the configuration file on its command line are those of the record.
    """
    ended = []
    for record in (directory / RECORDS).glob("[0-9]*"):
        pid = int(record.name)
        with suppress(OSError):
            handle = os.pidfd_open(pid)  # stays with this process when its id is reused
            try:
                if _is_recorded(pid, record.read_text(), directory):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    ended.append(pid)
            finally:
                os.close(handle)
    deadline = time.monotonic() + _KILL_SECONDS
    while any(start_time(pid) for pid in ended) and time.monotonic() < deadline:
        time.sleep(0.01)
    return ended


def _is_recorded(pid: int, started: str, directory: Path) -> bool:
    process = Path(f"/proc/{pid}")
    arguments = process.joinpath("cmdline").read_bytes().split(b"\0")
    return (
        process.stat().st_uid == os.geteuid()
        and start_time(pid) == started != ""
        and any(part.startswith(os.fsencode(directory) + b"/") for part in arguments)
    )


def clean_up(directory: Path) -> list[int]:
    """End a directory's HAProxies and remove the directory."""
    ended = end_haproxies(directory)
    shutil.rmtree(directory, ignore_errors=True)
    return ended


def clean_up_dead(parent: Path) -> list[int]:
    """Clean up the directories of this user's services that have ended without doing so."""
    ended: list[int] = []
    for directory in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if is_own(directory) and _is_dead(directory):
                ended += clean_up(directory)
    return ended


def is_own(directory: Path) -> bool:
    """Return whether a directory belongs to this user and other users cannot enter it."""
    status = directory.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o077
    )


def _is_dead(directory: Path) -> bool:
    """Return whether no process holds the lock, after the time for a service to take it."""
    try:
        stream = (directory / LOCK).open("r+")
    except FileNotFoundError:
        return time.time() - directory.stat().st_mtime > _MAX_START_SECONDS
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _watch(directory: Path) -> None:
    sys.stdin.buffer.read()  # returns at the end of the service, which holds the pipe's other end
    clean_up(directory)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
