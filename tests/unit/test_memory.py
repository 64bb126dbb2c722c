"""The memory of a family of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from finsent.memory import MemorySampler, family, memory

pytestmark = pytest.mark.cost(1, "starts a process")

HUNGRY = (
    "import sys; kept = bytearray(b'x') * (200 << 20); print('fed', flush=True); sys.stdin.read()"
)


def test_what_a_child_takes_is_counted_and_its_peak_kept() -> None:
    with MemorySampler(seconds=0.05) as before:
        pass
    with MemorySampler(seconds=0.05) as sampler:
        child = subprocess.Popen(
            [sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in family(os.getpid())
        pss, rss = memory([child.pid])
        assert rss >= pss >= 200 << 20
        with MemorySampler(seconds=0.05) as inner:
            pass
        child.communicate()
    assert inner.peak_pss >= 200 << 20
    assert sampler.peak_pss >= 200 << 20
    assert sampler.peak_rss >= sampler.peak_pss
    assert 0 < before.peak_pss < sampler.peak_pss


def test_processes_that_are_gone_count_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert memory([child.pid]) == (0, 0)
    assert child.pid not in family(os.getpid())
