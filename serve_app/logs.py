"""The log of requests: a line of JSON each, without their texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from serve_app.coalescer import Timing
from serve_app.incoming import Asker

log = logging.getLogger("finsent.requests")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, whatever protocol it came by."""

    operation: str
    asker: Asker
    status: int  # of HTTP
    seconds: float
    code: str | None = None  # of its problem; None: there was none
    version: str | None = None  # of the model that was asked; None: none was
    timing: Timing | None = None  # how its texts fared there


def folder() -> str:
    """Return where Serve's processes on this machine write their logs; Ray must be running."""
    from ray.serve._private.logging_utils import get_serve_logs_dir

    return str(get_serve_logs_dir())


def answered(every: bool, outcome: Outcome) -> None:
    """Write the line of a request.

    Args:
        every: also where nothing went wrong.
    """
    # Refused ones come by the thousand, and are counted.
    if not every and outcome.code in (None, "overloaded"):
        return
    line = {
        "request_id": outcome.asker.request_id,
        "key": outcome.asker.key,
        "operation": outcome.operation,
        "status": outcome.status,
        "code": outcome.code,
        "seconds": round(outcome.seconds, 6),
        "model_version": outcome.version,
    }
    timing = outcome.timing
    if timing is not None:
        line |= {
            "queue_seconds": round(timing.queued, 6),
            "inference_seconds": round(timing.computed, 6),
            "batch_rows": timing.rows,
        }
    log.info("%s", orjson.dumps(line).decode())


def asked(asker: Asker, texts: Sequence[str]) -> None:
    """Write the texts of a request: where the config wants it."""
    line = {"request_id": asker.request_id, "key": asker.key, "texts": texts}
    log.info("%s", orjson.dumps(line).decode())
