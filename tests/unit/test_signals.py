"""A signal ends the job wherever it comes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from finsent.adapters.ray_core import ENVIRONMENT, LOCAL_ENVIRONMENT
from finsent.config import check
from finsent.ray_session import ray_session
from finsent.signals import Interrupted, catch_signals
from ray_jobs._settings import JobSettings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    handlers, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be, and stay, ignored
    catch_signals()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook


class Signaled:
    """Gets a signal while it is being destroyed, where Python drops exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_signal_in_a_destructor_is_sent_again() -> None:
    with pytest.raises(Interrupted, match="SIGTERM"):
        Signaled()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)  # until it comes again, with the deadline above


class HalfMade:
    """What a signal leaves when it comes in the middle of `__init__`."""

    def __del__(self) -> None:
        raise AttributeError("not set yet")


def test_errors_of_half_initialized_objects_are_silent_after_a_signal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sys.unraisablehook = sys.__unraisablehook__
    HalfMade()
    assert "not set yet" in capsys.readouterr().err  # an error is shown, as long as none came
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    catch_signals()  # as when Ray is left
    HalfMade()
    assert capsys.readouterr().err == ""


def test_signal_raises_interrupted() -> None:
    with pytest.raises(Interrupted, match="SIGHUP"):
        signal.raise_signal(signal.SIGHUP)


def test_ray_does_not_keep_the_handler_that_it_sets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of SIGTERM: its handler exits with code 15, and nothing says why."""

    def init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(signum))

    for name, value in {**ENVIRONMENT, **LOCAL_ENVIRONMENT}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    node = SimpleNamespace(get_node_id=lambda: "here")
    stubs = {
        "init": init,
        "is_initialized": lambda: False,
        "get_runtime_context": lambda: node,
        "nodes": list,
        "shutdown": lambda: None,
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(ray, name, stub)
    settings = check(JobSettings, {"storage": {"root": str(tmp_path)}})
    with pytest.raises(Interrupted, match="SIGTERM"), ray_session(settings):
        signal.raise_signal(signal.SIGTERM)
