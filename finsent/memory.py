"""How much memory a process and all that it started take together."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PROC = Path("/proc")
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)


def family(root: int) -> list[int]:
    """A process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                # Behind the name, which may hold anything: state, then the parent.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def memory(pids: list[int]) -> tuple[int, int]:
    """Bytes of processes together: proportional set size, in which memory that several share counts
    once, and resident set size, in which it counts for each."""
    pss = rss = 0
    for pid in pids:
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended, or belongs to somebody else
        values = {line.split(":")[0]: int(line.split()[1]) for line in lines if "kB" in line}
        pss += values.get("Pss", 0) * 1024
        rss += values.get("Rss", 0) * 1024
    return pss, rss


def release_unused() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def release_early() -> None:
    """From now on give freed blocks back to the system at once (glibc).

    By default it learns from the largest block that was freed to keep as much, for each of eight
    heaps a core: in a process of many threads that is what they ever needed, together.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for parameter, value in (
            (_MMAP_THRESHOLD, 1 << 17),
            (_TRIM_THRESHOLD, 1 << 17),
            (_ARENA_MAX, 2),
        ):
            libc.mallopt(parameter, value)


class MemorySampler:
    """Peak memory of this process and its descendants while the block runs; Linux only."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
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
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            pss, rss = memory(family(os.getpid()))
            self.peak_pss, self.peak_rss = max(self.peak_pss, pss), max(self.peak_rss, rss)
            if self._end.wait(self._seconds):
                return
