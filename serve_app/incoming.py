"""What is read of a request before it is understood."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from serve_app.problems import Problem, too_late

_ID_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sends a request, as logs and metrics name the sender."""

    request_id: str
    key: str | None = None  # name of the API key; None: the request needs none


def request_id_of(headers: Mapping[str, str]) -> str:
    """The client's own, where it is a plain one."""
    given = headers.get("x-request-id", "")
    if given and len(given) <= _ID_LENGTH and given.isascii() and given.isprintable():
        return given
    return uuid.uuid4().hex


def waited(request: Request) -> float:
    """Seconds since a proxy took the request (`X-Request-Start: t=MILLISECONDS`), where one says.

    Under overload requests wait in front of this process, where it cannot see them.
    """
    said = request.headers.getlist("x-request-start")
    began = said[-1].removeprefix("t=")[:15] if said else ""  # a proxy's comes after a client's own
    if not (began.isascii() and began.isdigit()):
        return 0.0
    return max(time.time() - int(began) / 1000, 0.0)


def declared(request: Request) -> int:
    """Bytes that the body is said to have; 0 where that is not said."""
    declared = request.headers.get("content-length", "")
    return int(declared[:18]) if declared.isdigit() else 0


async def read_body(request: Request, most: int) -> bytes:
    """The body, as far as it is allowed to go.

    Raises:
        Problem: it has more bytes, or is compressed.
        ClientDisconnect: the client left.
    """
    too_large = Problem(
        "body_too_large", f"the body has more than {most} bytes; send less at a time"
    )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "compressed bodies are not taken; send it as it is")
    if declared(request) > most:
        raise too_large
    pieces, size = [], 0
    request.state.body_is_left = True
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise too_large
        pieces.append(piece)
    request.state.body_is_left = False
    return b"".join(pieces)


def body_is_left(request: Request) -> bool:
    """Whether `read_body` began and did not come to the end of the body."""
    return getattr(request.state, "body_is_left", False)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the bytes of a file must pass, on their way in and out."""

    patience: float  # seconds for a piece, and that all of them together may be behind the rate
    rate: int  # bytes per second
    seconds: float  # for all of it, in and out
    until: float  # when they have passed, by the event loop's clock

    def late(self) -> Problem:
        """What is said of what was not done in time."""
        return Problem(
            "deadline_exceeded",
            f"no answer within {self.seconds:g} s (serve.limits.file_seconds); send fewer rows "
            "at a time",
        )


def paced(request: Request, pace: Pace) -> Request:
    """A request whose body must come at a pace.

    Reading it raises Problem else: 504 for a piece that does not come, a body that is too slow, and
    one that takes too long.
    """
    clock = asyncio.get_running_loop().time
    began, size = clock(), 0

    async def receive() -> Any:
        nonlocal size
        due = {
            clock() + pace.patience: too_late(pace.patience),
            began + pace.patience + size / pace.rate: Problem(
                "deadline_exceeded",
                f"the file came at less than {pace.rate} bytes per second "
                "(serve.limits.file_bytes_per_second); send it faster, or fewer rows at a time",
            ),
            pace.until: pace.late(),
        }
        first = min(due)
        try:
            async with asyncio.timeout_at(first):
                message = await request.receive()
        except TimeoutError:
            raise due[first] from None
        size += len(message.get("body", b""))
        return message

    return Request(request.scope, receive)


async def until_left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
