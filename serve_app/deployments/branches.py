"""Side branches of the graph: gateways feed them, and no request waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from finsent.disk import find_disk_error

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_GATHER_SECONDS = 0.5  # that items gather before one call sends all of them
_MAX_WAITING = 4096  # items; a branch that does not keep up loses the others
_SEND_SECONDS = 60.0  # for a call; a branch may have to start first
_LAST_SEND_SECONDS = 5.0  # for the last call, while the replica ends


class Branch(Generic[Item]):
    """Sends items to a deployment in batches, in the background."""

    def __init__(self, name: str, send: Callable[[list[Item]], Awaitable[Any]]) -> None:
        self.sent = 0
        self.lost = 0  # there was no room, or the branch failed
        self._name, self._send = name, send
        self._waiting: list[Item] = []
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    def offer(self, items: Sequence[Item]) -> None:
        """Accept items as far as there is room; return at once."""
        room = max(0, _MAX_WAITING - len(self._waiting))
        self._waiting += items[:room]
        self.lost += len(items) - min(room, len(items))
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Send the items that still wait."""
        self._ending.set()
        if self._task is not None:
            _, running = await asyncio.wait({self._task}, timeout=_LAST_SEND_SECONDS)
            if running:
                log.warning(
                    "%s: the last items may be lost: a call took more than %g seconds",
                    self._name,
                    _LAST_SEND_SECONDS,
                )

    async def _run(self) -> None:
        try:
            while self._waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_GATHER_SECONDS):
                        await self._ending.wait()
                items, self._waiting = self._waiting, []
                try:
                    async with asyncio.timeout(_SEND_SECONDS):
                        await self._send(items)
                    self.sent += len(items)
                except Exception as error:  # a branch must not disturb requests
                    self.lost += len(items)
                    reason = find_disk_error(error) or repr(error)
                    log.warning("%s: %d items are lost: %s", self._name, len(items), reason)
        finally:
            self._task = None
