"""Answers in JSON."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

JSON = "application/json"


def json_answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer whose body is this as JSON."""
    return Response(orjson.dumps(content), status, headers, media_type=JSON)
