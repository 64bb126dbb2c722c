"""Calls in threads that the process does not wait for when it exits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def call_in_daemon(name: str, function: Callable[[], Result]) -> Future[Result]:
    """Call a function in a daemon thread, and return the future of its result.

    A call of Ray in another thread may block forever after `ray.shutdown`. At exit, Python joins
    the threads of a `ThreadPoolExecutor`: the process would never end.

    Args:
        name: of the thread.
    """
    future: Future[Result] = Future()

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            result = function()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
