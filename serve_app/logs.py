"""The log of requests: a line of JSON each, without their texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import orjson

from serve_app.coalescer import Timing

log = logging.getLogger("finsent.requests")


def answered(
    every: bool, request_id: str, operation: str, status: int, seconds: float,
    code: str | None = None, version: str | None = None, timing: Timing | None = None,
) -> None:  # fmt: skip
    """Write the line of a request.

    Args:
        every: also where nothing went wrong.
        code: of its problem; None: there was none.
        version: of the model that was asked, and how its texts fared there.
    """
    # Refused ones come by the thousand, and are counted.
    if not every and code in (None, "overloaded"):
        return
    line = {
        "request_id": request_id,
        "operation": operation,
        "status": status,
        "code": code,
        "seconds": round(seconds, 6),
        "model_version": version,
    }
    if timing is not None:
        line |= {
            "queue_seconds": round(timing.queued, 6),
            "inference_seconds": round(timing.computed, 6),
            "batch_rows": timing.rows,
        }
    log.info("%s", orjson.dumps(line).decode())


def asked(request_id: str, texts: Sequence[str]) -> None:
    """Write the texts of a request: where the config wants it."""
    log.info("%s", orjson.dumps({"request_id": request_id, "texts": texts}).decode())
