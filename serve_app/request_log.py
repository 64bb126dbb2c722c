"""The log of requests: one line of JSON per request, without its texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from serve_app.sender import Sender
from serve_app.service.coalescer import Timing

log = logging.getLogger("finsent.requests")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a request of any protocol."""

    operation: str
    sender: Sender
    status: int  # of HTTP
    seconds: float
    code: str | None = None  # of its problem; None: there was none
    model_version: str | None = None  # that was asked; None: no model was asked
    timing: Timing | None = None  # of its texts in the queue and the model


def answered(log_all: bool, outcome: Outcome) -> None:
    """Write the line of a request.

    Args:
        log_all: also write the lines of requests that succeeded.
    """
    # Requests that are refused by overload come by the thousand; metrics count them.
    if not log_all and outcome.code in (None, "overloaded"):
        return
    line = {
        "request_id": outcome.sender.request_id,
        "key": outcome.sender.key,
        "operation": outcome.operation,
        "status": outcome.status,
        "code": outcome.code,
        "seconds": round(outcome.seconds, 6),
        "model_version": outcome.model_version,
    }
    timing = outcome.timing
    if timing is not None:
        line |= {
            "queue_seconds": round(timing.queued, 6),
            "inference_seconds": round(timing.computed, 6),
            "batch_rows": timing.rows,
        }
    log.info("%s", orjson.dumps(line).decode())


def log_texts(sender: Sender, texts: Sequence[str]) -> None:
    """Write the texts of a request, for services whose config enables that."""
    line = {"request_id": sender.request_id, "key": sender.key, "texts": texts}
    log.info("%s", orjson.dumps(line).decode())
