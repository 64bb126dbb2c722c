"""A proxy before an S3 server that delays, refuses, cuts and falsifies responses."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal[
    "503", "429", "403", "stall", "torn", "lost", "false", "expired", "skew", "unconditional"
]
# The first line of a request, e.g. "GET /bucket/key HTTP/1.1": its fault; None: it is answered.
Choice = Callable[[str], Fault | None]

_STALL_SECONDS = 60.0
_REFUSALS = {
    "503": (503, "Service Unavailable", "SlowDown"),
    "429": (429, "Too Many Requests", "TooManyRequests"),
    "403": (403, "Forbidden", "InvalidAccessKeyId"),
    "expired": (400, "Bad Request", "ExpiredToken"),
    "skew": (403, "Forbidden", "RequestTimeTooSkewed"),
}


@dataclass
class FaultProxy:
    """Forwards requests, each over its own connection, with the faults that `choose` returns."""

    upstream: str  # URL
    choose: Choice = lambda _: None
    url: str = ""
    counts: Counter[str] = field(default_factory=Counter)  # of faults

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
            fault = self.choose(head.split(b"\r\n", 1)[0].decode())
            if fault is not None:
                self.counts[fault] += 1
            await self._answer(head, body, fault, writer)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _answer(
        self, head: bytes, body: bytes, fault: Fault | None, writer: asyncio.StreamWriter
    ) -> None:
        if fault in _REFUSALS:
            writer.write(_refusal(*_REFUSALS[fault]))
            await writer.drain()
            return
        if fault == "stall":
            await asyncio.sleep(_STALL_SECONDS)
            return
        if fault == "unconditional":  # as a server that does not know conditional writes
            head = re.sub(rb"(?i)\r\nif-(none-)?match:[^\r]*", b"", head)
        response = await self._forward(head, body)
        if fault == "lost":
            return
        end = response.index(b"\r\n\r\n") + 4
        if fault == "torn":  # at least the last byte is missing
            response = response[: end + (len(response) - end) // 2] if len(response) > end else b""
        if fault == "false" and len(response) > end:
            response = response[:-1] + bytes([response[-1] ^ 1])
        writer.write(response)
        await writer.drain()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        parts = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [
            line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")
        ]
        lines.insert(1, b"Connection: close")
        writer.write(b"\r\n".join(lines) + body)
        await writer.drain()
        response = await reader.read()
        writer.close()
        return response


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _refusal(status: int, reason: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy in a thread."""
    proxy, loop = FaultProxy(upstream), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.handle, "127.0.0.1", 0))
    proxy.url = "http://{}:{}".format(*server.sockets[0].getsockname())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
