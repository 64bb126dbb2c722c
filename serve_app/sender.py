"""The sender of a request."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

_MAX_ID_LENGTH = 128  # ids enter the log


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of a request, as logs and metrics name it."""

    request_id: str
    key: str | None = None  # name of the API key; None: the request needs no key
    client: str | None = None  # value of the header `serve.canary_header`; None: not sent
    seconds: float | None = None  # that the request may take; None: no deadline


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the request id that the client sent if it is short printable ASCII, else a new id."""
    request_id = headers.get("x-request-id", "")
    is_plain = request_id.isascii() and request_id.isprintable()
    if request_id and len(request_id) <= _MAX_ID_LENGTH and is_plain:
        return request_id
    return uuid.uuid4().hex
