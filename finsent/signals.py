"""Signals that end a job: `finally` blocks clean up, and the exit code names the signal."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import TypeVar

from finsent.disk import iterate_causes

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RESEND_SECONDS = 0.05  # until a destructor, which drops what is raised in it, has returned

Error = TypeVar("Error", bound=BaseException)


class Interrupted(BaseException):
    """A signal requested the job's end. Not an `Exception`, so that no handler swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def catch_signals() -> None:
    """Turn the next SIGINT, SIGTERM or SIGHUP into `Interrupted`, and ignore further ones.

    Called again after `ray.init`, which sets a handler of its own.
    """

    def interrupt(signum: int, _frame: object) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # cleaning up must not be interrupted
        sys.unraisablehook = _resend_signal
        raise Interrupted(signum)

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)


def _resend_signal(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception was raised in a destructor, where Python drops it.

    Other errors are dropped: they come from objects that the signal left half-initialized.
    """
    error = unraisable.exc_value
    if isinstance(error, Interrupted):
        catch_signals()
        threading.Timer(_RESEND_SECONDS, os.kill, (os.getpid(), error.signum)).start()


def find_cause(error: BaseException, kind: type[Error]) -> Error | None:
    """Return the error of a kind that an error wraps, or None; Ray wraps the errors of workers."""
    return next((cause for cause in iterate_causes(error) if isinstance(cause, kind)), None)


def is_wanted(record: logging.LogRecord) -> bool:
    """Return whether to show a log record: not Ray's records of a signal that it caught.

    The job reports the signal itself.
    """
    error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
    is_from_ray = record.name.partition(".")[0] == "ray"
    return error is None or not is_from_ray or find_cause(error, Interrupted) is None
