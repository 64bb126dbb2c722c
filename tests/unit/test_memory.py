"""Peaks of a process and of all that it started."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from finsent.memory import MemorySampler, family

MB = 1 << 20


@contextmanager
def _child(program: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has said a line and waits for the end of its input."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{program}\nprint('ready', flush=True)\ninput()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.communicate()


def test_a_childs_memory_counts_and_its_peak_stays() -> None:
    with MemorySampler() as before:
        pass
    wanted = before.peak_pss + 190 * MB
    with MemorySampler() as sampler:
        with _child("held = b'x' * (200 << 20)"):
            end = time.monotonic() + 60
            while sampler.peak_pss < wanted and time.monotonic() < end:
                os.sched_yield()
        with MemorySampler() as after:
            pass
    assert sampler.peak_pss > wanted
    assert sampler.peak_rss > before.peak_rss + 190 * MB
    assert after.peak_pss < wanted


def test_own_memory_counts() -> None:
    with MemorySampler() as before:
        pass
    held = np.ones(100 * MB, np.uint8)
    with MemorySampler() as sampler:
        pass
    assert held[-1] == 1
    assert sampler.peak_pss > before.peak_pss + 90 * MB


def test_shared_memory_counts_once_in_pss_and_twice_in_rss() -> None:
    fork = """
import mmap, os
shared = mmap.mmap(-1, 200 << 20)
shared.write(b'x' * (200 << 20))
inside, outside = os.pipe()
seen, told = os.pipe()
if os.fork() == 0:
    total = sum(shared[i] for i in range(0, 200 << 20, 4096))
    os.write(told, b'.')
    os.close(outside)
    os.read(inside, 1)
    os._exit(0)
os.read(seen, 1)
"""
    with MemorySampler() as before:
        pass
    with _child(fork), MemorySampler() as sampler:
        pass
    assert sampler.peak_pss < before.peak_pss + 300 * MB
    assert sampler.peak_rss > before.peak_rss + 390 * MB


def test_a_family_has_grandchildren_and_names_with_brackets_in_it() -> None:
    program = """
import subprocess, sys
with open('/proc/self/comm', 'w') as name:
    name.write('a) b (c')
grandchild = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
"""
    with _child(program) as process:
        found = family(os.getpid())
        assert found[0] == os.getpid()
        assert process.pid in found
        assert process.pid in family(process.pid)
        assert len(family(process.pid)) == 2
    assert process.pid not in family(os.getpid())


def test_an_error_inside_passes_and_the_thread_ends() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError, match="inside"), MemorySampler() as sampler:
        assert threading.active_count() == before + 1
        raise KeyError("inside")
    assert threading.active_count() == before
    assert sampler.peak_pss > 0
