"""Why a trial failed: one line for people, and the cause for the search."""

from __future__ import annotations

from finsent.disk import worker_failures
from finsent.errors import DivergenceError, MemoryShortageError, UserError
from tune.trial_events import DIVERGED, MEMORY

_MAX_LENGTH = 300  # characters


def failure_reason(error: BaseException) -> str:
    """Return the innermost cause of an error in one line."""
    innermost = _innermost_cause(error)
    text = " ".join(str(innermost).split())
    if not isinstance(innermost, UserError):
        text = f"{type(innermost).__name__}: {text}"
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 3] + "..."


def failure_cause(error: BaseException) -> str | None:
    """Return the cause, of CAUSES, of a failure for which the trial's settings are to blame."""
    innermost = _innermost_cause(error)
    if isinstance(innermost, DivergenceError):
        return DIVERGED
    kind = type(innermost)
    # By name: the process that watches a trial does not import PyTorch.
    is_torch = kind.__name__ == "OutOfMemoryError" and kind.__module__.startswith("torch")
    return MEMORY if is_torch or isinstance(innermost, MemoryShortageError) else None


def _innermost_cause(error: BaseException) -> BaseException:
    innermost, seen = error, set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        innermost = current
        worker_error = next(iter(worker_failures(current)), None)
        # `cause`: of an error that Ray brought from another process.
        current = worker_error or getattr(current, "cause", None) or current.__cause__
    return innermost
