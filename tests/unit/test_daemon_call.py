"""Calls whose threads do not keep the process alive."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pytest

from finsent.daemon_call import call_in_daemon

HANGS = """
import threading
from finsent.daemon_call import call_in_daemon
call_in_daemon("hangs", threading.Event().wait)
print("ends")
"""


@pytest.fixture
def hanging() -> Iterator[Callable[[], bool]]:
    """A call that does not return during the test."""
    event = threading.Event()
    yield event.wait
    event.set()


def daemons(name: str) -> list[bool]:
    """Return for each thread of a name whether it is a daemon."""
    return [thread.daemon for thread in threading.enumerate() if thread.name == name]


def test_a_result_and_an_error_come_back() -> None:
    assert call_in_daemon("three", lambda: 3).result(60) == 3
    with pytest.raises(SystemExit):
        call_in_daemon("exits", lambda: sys.exit(1)).result(60)


def test_a_process_ends_while_a_call_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


class Display:
    """The first progress is interrupted."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


@pytest.mark.cost(4, "imports Ray Train")
def test_an_interrupted_training_leaves_no_thread_that_the_process_waits_for(
    hanging: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    from finsent.training import ray_driver

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    class Trainer:
        fit = staticmethod(hanging)

        def stop(self, seconds: float) -> None:
            """Stop nothing: the call of Ray still hangs."""

    trainer: Any = Trainer()
    display: Any = Display()
    monkeypatch.setattr(ray_driver, "_show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ray_driver._fit_and_show(trainer, None, display)
    assert daemons("ray-train") == [True]


@pytest.mark.cost(1, "imports Ray Tune")
def test_an_interrupted_sweep_leaves_no_thread_that_the_process_waits_for(
    hanging: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tune import tuner

    def interrupt() -> None:
        raise KeyboardInterrupt

    class Tuner:
        fit = staticmethod(hanging)

    monkeypatch.setattr(tuner, "remove_orphaned_groups", lambda: None)
    monkeypatch.setattr(tuner, "remove_last_orphaned_groups", lambda _: None)
    monkeypatch.setattr(tuner, "_CLOSE_SECONDS", 0.01)
    closed: list[bool] = []
    stub: Any = Tuner()
    with pytest.raises(KeyboardInterrupt):
        tuner.run_tuner(stub, interrupt, lambda: closed.append(True))
    assert closed == [True]
    assert daemons("ray-tune") == [True]
