"""Leases: one holder at a time, and no dead one for long."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finsent.errors import InputError
from finsent.storage.lease import hold_lease
from finsent.storage.local_store import LocalStore
from finsent.storage.store import Store
from tests.commands import PROJECT, wait_until

SUBJECT = "run.name='a'"
SECONDS = 0.5
_HOLD = """
import sys, time
from pathlib import Path
from finsent.storage.lease import hold_lease
from finsent.storage.local_store import LocalStore
with hold_lease(LocalStore(Path(sys.argv[1]), "storage.root"), "lease", "run.name='a'", 0.5):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path, "storage.root")


@pytest.mark.cost(1, "watches a lease that is renewed")
def test_a_living_holder_is_named(store: Store) -> None:
    with hold_lease(store, "lease", SUBJECT, SECONDS):
        with (
            pytest.raises(InputError, match=r"^run\.name='a': a process on .* runs it\. Wait"),
            hold_lease(store, "lease", SUBJECT, SECONDS),
        ):
            pass
        assert store.read("lease") is not None
    assert store.read("lease") is None
    with hold_lease(store, "lease", SUBJECT, SECONDS) as lease:
        lease.check()


@pytest.mark.cost(3, "kills and stops a process that holds a lease")
def test_the_lease_of_a_killed_holder_is_taken_over(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        holder.kill()
    started = time.monotonic()
    with hold_lease(store, "lease", SUBJECT, SECONDS):
        assert time.monotonic() - started >= SECONDS


def test_a_holder_learns_that_its_lease_was_taken_over(store: Store) -> None:
    def is_lost() -> bool:
        try:
            lease.check()
        except InputError:
            return True
        return False

    with (
        pytest.raises(InputError, match="another process took the run over"),
        hold_lease(store, "lease", SUBJECT, 0.1) as lease,
    ):
        store.put("lease", b"of another process")  # as after a pause of this process
        wait_until(is_lost, 20, "the lease to be lost")
    stored = store.read("lease")
    assert stored is not None and stored.data == b"of another process"


@pytest.mark.cost(2, "eight threads wait for a lease to expire")
def test_one_of_many_takes_a_dead_lease_over(store: Store) -> None:
    with hold_lease(store, "lease", SUBJECT, 60) as dead:
        del dead
        stored = store.read("lease")
        assert stored is not None
    store.put("lease", stored.data)  # of a holder that renews no more

    def hold(_: int) -> bool:
        try:
            with hold_lease(store, "lease", SUBJECT, SECONDS):
                time.sleep(3 * SECONDS)  # longer than any other contender watches
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(hold, range(8))) == 1
