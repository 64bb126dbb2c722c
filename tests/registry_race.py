"""Processes that race to promote and roll back one alias, and the check of its history."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the racing processes do not import pytest
    import pytest

from finsent.registry.aliases import Aliases, AliasRecord
from finsent.storage import Location, StorageConfig
from tests.commands import PROJECT

ALIAS = "champion"
_WORKER = "import sys; from tests.registry_race import work; work(*sys.argv[1:])"


@dataclass(frozen=True)
class Done:
    """A change that a process was told of."""

    action: str
    version: str
    started: float = field(default=0.0, compare=False)  # of the machine's monotonic clock
    ended: float = field(default=0.0, compare=False)


def aliases(root: str) -> Aliases:
    """The aliases of a registry."""
    config = StorageConfig(retry_seconds=120)
    return Aliases(Location.at(root, "registry.root", config) / "aliases")


def work(root: str, seed: str, count: str) -> None:
    """Promote and roll back at random, and print what was done, one JSON object per line."""
    rng, target = random.Random(int(seed)), aliases(root)
    for index in range(int(count)):
        started = time.monotonic()
        if rng.random() < 0.6 or target.get(ALIAS) is None:
            version = f"{int(seed):04x}{index:08x}"  # that no other promotion has
            target.move(ALIAS, version, None)
            _report("promote", version, started)
            continue
        try:
            version = target.move_back(ALIAS, lambda _: None)
        except Exception as error:
            if "no earlier version" not in str(error):
                raise
            continue
        _report("rollback", version, started)


def _report(action: str, version: str, started: float) -> None:
    sys.stdout.write(json.dumps([action, version, started, time.monotonic()]) + "\n")
    sys.stdout.flush()


def _race(root: str, processes: int, count: int) -> list[list[Done]]:
    """Run the processes, and return what each of them did, in its order."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, root, str(seed), str(count)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(processes)
    ]
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * processes
    return [[Done(*json.loads(line)) for line in output.splitlines()] for output in outputs]


def _check_history(record: AliasRecord, done: list[list[Done]]) -> None:
    """Check that the history is one order of all changes, in which each of them is legal.

    No change is lost, doubled or foreign; each process's changes are in its order; and replaying
    the changes one after another gives the alias's version and its earlier versions.
    """
    history = [Done(change.action, change.version) for change in record.changes]
    assert len({change.id for change in record.changes}) == len(history)
    assert len(history) == sum(map(len, done))
    # Promotions are unique, so the order of each process can be compared.
    for own in done:
        promoted = [d for d in own if d.action == "promote"]
        assert [d for d in history if d in set(promoted)] == promoted
    _check_time(history, {d.version: d for own in done for d in own if d.action == "promote"})
    assert Counter(history) == Counter(d for own in done for d in own)
    stack: list[str] = []
    for change in history:
        if change.action == "promote":
            stack.append(change.version)
        else:
            stack.pop()
            assert stack[-1] == change.version
    assert (record.version, record.previous) == (stack[-1], tuple(stack[:-1]))


def _check_time(history: list[Done], promotions: dict[str, Done]) -> None:
    """Check that a promotion which ended before another one began is before it in the history."""
    latest_start = 0.0
    for change in history:
        if change.action == "promote":
            own = promotions[change.version]
            assert own.ended >= latest_start
            latest_start = max(latest_start, own.started)


def check_race(
    kind: str, folder: Path, request: pytest.FixtureRequest, processes: int, count: int
) -> None:
    """Race on a registry in a directory or in a bucket, and check the history.

    Args:
        kind: "directory" or "bucket".
        folder: of the test.
        count: changes per process.
    """
    root = str(folder / "registry")
    if kind == "bucket":
        root = request.getfixturevalue("s3_root")
    done = _race(root, processes, count)
    record = aliases(root).get(ALIAS)
    assert record is not None
    _check_history(record, done)
