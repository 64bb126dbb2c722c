"""Memory of a process tree."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from finsent.memory import MemorySampler, memory_usage, process_tree

pytestmark = pytest.mark.cost(1, "starts a process")

CHILD_WITH_MEMORY = (
    "import sys; kept = bytearray(b'x') * (200 << 20); print('ready', flush=True); sys.stdin.read()"
)


def test_memory_of_a_child_counts_toward_the_peak() -> None:
    with MemorySampler(seconds=0.05) as before:
        pass
    with MemorySampler(seconds=0.05) as sampler:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD_WITH_MEMORY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in process_tree(os.getpid())
        pss, rss = memory_usage([child.pid])
        assert rss >= pss >= 200 << 20
        with MemorySampler(seconds=0.05) as inner:
            pass
        child.communicate()
    assert inner.peak_pss >= 200 << 20
    assert sampler.peak_pss >= 200 << 20
    assert sampler.peak_rss >= sampler.peak_pss
    assert 0 < before.peak_pss < sampler.peak_pss


def test_ended_processes_count_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert memory_usage([child.pid]) == (0, 0)
    assert child.pid not in process_tree(os.getpid())
