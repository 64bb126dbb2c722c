"""Bodies of HTTP requests: limited in size, in time, and in pace."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Message

from serve_app.problems import Problem, body_too_large, too_late


def proxy_seconds(request: Request) -> float:
    """Return the seconds since a proxy accepted the request; 0: no proxy reports that.

    Under overload, requests wait in front of this process, which cannot see them. The proxy sends
    `X-Request-Start: t=MILLISECONDS`.
    """
    values = request.headers.getlist("x-request-start")
    started = values[-1].removeprefix("t=")[:15] if values else ""  # the client's own come first
    if not (started.isascii() and started.isdigit()):
        return 0.0
    return max(time.time() - int(started) / 1000, 0.0)


def declared_size(request: Request) -> int:
    """Return the size of the body in bytes by `Content-Length`; 0: the header is not there."""
    length = request.headers.get("content-length", "")
    return int(length[:18]) if length.isdigit() else 0


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body, unless it has more than `limit` bytes.

    Raises:
        Problem: it has more bytes, or is compressed.
        ClientDisconnect: the client left.
    """
    too_large = body_too_large("body", limit)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            "unsupported_media_type", "the body is compressed. Send it without Content-Encoding."
        )
    if declared_size(request) > limit:
        raise too_large
    pieces, size = [], 0
    request.state.body_is_left = True
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise too_large
        pieces.append(piece)
    request.state.body_is_left = False
    return b"".join(pieces)


def body_is_left(request: Request) -> bool:
    """Return whether `read_body` began and did not reach the end of the body."""
    return getattr(request.state, "body_is_left", False)


@dataclass(frozen=True, slots=True)
class Pace:
    """The minimum rate of a file's bytes, in and out."""

    patience: float  # seconds for one piece, and for all pieces to be behind the rate
    rate: int  # bytes per second
    seconds: float  # for the upload and the answer together
    until: float  # end of these seconds, by the event loop's clock

    def late(self) -> Problem:
        """Return the refusal of the rows that were not answered in time."""
        return Problem(
            "deadline_exceeded",
            f"no answer within {self.seconds:g} s (serve.limits.file_seconds). Send fewer rows at "
            "a time.",
        )


def paced(request: Request, pace: Pace) -> Request:
    """Return the request with a body that must come at a pace.

    Reading the body raises Problem (504) when a piece does not come, when the body comes too
    slowly, and when it takes too long.
    """
    clock = asyncio.get_running_loop().time
    started, size = clock(), 0

    async def receive() -> Message:
        nonlocal size
        refusals = {
            clock() + pace.patience: too_late(pace.patience),
            started + pace.patience + size / pace.rate: Problem(
                "deadline_exceeded",
                f"the file came at less than {pace.rate} bytes per second "
                "(serve.limits.file_bytes_per_second). Send it faster, or send fewer rows at a "
                "time.",
            ),
            pace.until: pace.late(),
        }
        deadline = min(refusals)
        try:
            async with asyncio.timeout_at(deadline):
                message = await request.receive()
        except TimeoutError:
            raise refusals[deadline] from None
        size += len(message.get("body", b""))
        return message

    return Request(request.scope, receive)


async def until_left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
