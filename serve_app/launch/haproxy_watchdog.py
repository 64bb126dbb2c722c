"""End HAProxies that outlived their service, and remove the service's directory.

A service keeps HAProxy's files in a directory of its own and holds the lock of a file there. Each
HAProxy has a record in the directory. The service's watchdog runs this file by its path, with the
standard library only, so that the watchdog starts in milliseconds and needs 10 MB. The watchdog
waits until the service has ended, in whatever way.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

RECORDS = "haproxies"  # one file per HAProxy: its process id, with its start time
_KILL_SECONDS = 5.0  # for a killed process to be gone


def start_time(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty: there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the program's name before may hold anything
    return "" if fields[0] in "ZX" else fields[19]


def end_haproxies(directory: Path) -> list[int]:
    """Kill the HAProxies that a directory has records of, and return their process ids.

    The system may have given a process id to another program since. A process is killed only when
    its start time, its user and the configuration file on its command line are those of the record.
    """
    ended = []
    for record in (directory / RECORDS).glob("[0-9]*"):
        pid = int(record.name)
        with suppress(OSError):
            handle = os.pidfd_open(pid)  # names one process from now on, alive or dead
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
        and any(argument.startswith(os.fsencode(directory) + b"/") for argument in arguments)
    )


def clean_up(directory: Path) -> list[int]:
    """End a directory's HAProxies, remove the directory, and return the process ids."""
    ended = end_haproxies(directory)
    shutil.rmtree(directory, ignore_errors=True)
    return ended


def _watch(directory: Path) -> None:
    sys.stdin.buffer.read()  # ends when the service has: it holds the other end of this pipe
    clean_up(directory)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
