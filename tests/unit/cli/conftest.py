"""A caller of jobs in the test's process."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ray_jobs._cli import Job, main
from tests.unit.cli.jobs import Caller


@pytest.fixture
def called(capfd: pytest.CaptureFixture[str]) -> Iterator[Caller]:
    """Return a function that runs a job here and returns exit code, stdout and stderr.

    Signal handlers are restored after the test.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]

    def call(what: Job, *argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(what, argv)
        captured = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    yield call
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
