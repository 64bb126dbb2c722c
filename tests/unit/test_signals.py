"""A signal ends the job wherever it comes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator

import pytest

from ray_jobs._cli import Interrupted, catch_signals

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


class Signalled:
    """Gets a signal while it is being destroyed, where Python drops exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_in_a_destructor() -> None:
    with pytest.raises(Interrupted, match="SIGTERM"):
        Signalled()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)  # until it comes again, with the deadline above


class HalfMade:
    """What a signal leaves when it comes in the middle of `__init__`."""

    def __del__(self) -> None:
        raise AttributeError("not set yet")


def test_what_it_leaves_half_made_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    sys.unraisablehook = sys.__unraisablehook__
    HalfMade()
    assert "not set yet" in capsys.readouterr().err  # an error is shown, as long as none came
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    catch_signals()  # as when Ray is left
    HalfMade()
    assert capsys.readouterr().err == ""


def test_in_the_open() -> None:
    with pytest.raises(Interrupted, match="SIGHUP"):
        signal.raise_signal(signal.SIGHUP)
