"""Memory of a process tree, and how to return freed memory to the system."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

import psutil

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # parameters of mallopt(3)
_THRESHOLD_BYTES = 1 << 17
_MAX_ARENAS = 2


class MemoryUsage(NamedTuple):
    """Memory of processes together, in bytes."""

    pss: int  # proportional set size: shared memory counts once
    rss: int  # resident set size: shared memory counts for each process


def process_tree(root: int) -> list[int]:
    """Return the ids of a process and all its living descendants."""
    with suppress(psutil.Error):
        return [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]
    return [root]


def memory_usage(pids: list[int]) -> MemoryUsage:
    """Sum the memory of processes. Ended processes and those of other users count nothing."""
    pss = rss = 0
    for pid in pids:
        with suppress(psutil.Error):
            info = psutil.Process(pid).memory_full_info()
            pss += info.pss
            rss += info.rss
    return MemoryUsage(pss, rss)


def release_unused() -> None:
    """Return freed memory that the C library keeps to the system (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def release_early() -> None:
    """Return freed blocks to the system at once from now on (glibc).

    By default glibc keeps as much as the largest block that was ever freed, in each of eight heaps
    per core. In a process of many threads that adds up to the sum of their peaks.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for parameter, value in (
            (_MMAP_THRESHOLD, _THRESHOLD_BYTES),
            (_TRIM_THRESHOLD, _THRESHOLD_BYTES),
            (_ARENA_MAX, _MAX_ARENAS),
        ):
            libc.mallopt(parameter, value)


class MemorySampler:
    """Context manager that samples the peak memory of this process and its descendants (Linux)."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_pss = 0  # bytes
        self.peak_rss = 0  # bytes

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            usage = memory_usage(process_tree(os.getpid()))
            self.peak_pss = max(self.peak_pss, usage.pss)
            self.peak_rss = max(self.peak_rss, usage.rss)
            if self._stop.wait(self._seconds):
                return
