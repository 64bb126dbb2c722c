"""What is read of a request before it is understood."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from serve_app.problems import Problem

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
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)


def steady(request: Request, seconds: float) -> Request:
    """A request whose body may take any time, as long as each piece comes in so many seconds.

    Reading it raises TimeoutError else.
    """

    async def receive() -> Any:
        async with asyncio.timeout(seconds):
            return await request.receive()

    return Request(request.scope, receive)


async def until_left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
