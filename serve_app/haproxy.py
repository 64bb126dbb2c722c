"""Start HAProxy again at once when it was killed.

Ray 2.60 notices by its health checks and then starts another process that starts HAProxy, which
takes three to six seconds in all. The process that started HAProxy knows at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger("ray.serve")

_PAUSE_SECONDS = 0.05  # in which Ray, where it ended HAProxy itself, forgets the process
_tasks: set[asyncio.Task[None]] = set()  # the event loop itself keeps no reference


def restart_when_killed() -> None:
    """Let Ray's manager of HAProxy, where this process becomes that, look after each HAProxy."""
    from ray.serve._private.haproxy import HAProxyApi

    manager: Any = HAProxyApi
    start = manager._start_and_wait_for_haproxy

    async def start_watched(api: HAProxyApi, *arguments: Any, **options: Any) -> Any:
        process = await start(api, *arguments, **options)
        task = asyncio.get_running_loop().create_task(_watch(api, process))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return process

    manager._start_and_wait_for_haproxy = start_watched


async def _watch(api: Any, process: asyncio.subprocess.Process) -> None:
    code = await process.wait()
    if code == 0:  # its successor, with another configuration, has asked it to end
        return
    await asyncio.sleep(_PAUSE_SECONDS)
    if api._proc is not process:
        return
    log.error("HAProxy (process %d) ended with code %d and is started again", process.pid, code)
    try:
        await api.start()
    except Exception:
        log.exception("HAProxy did not start again: Ray's health check tries next")
