"""Reports of a trial to Ray Tune.

- After each epoch: `epoch` (from 1), the epoch's finite metrics, `epoch_seconds`.
- At its end: `final` (values by objective), `model_dir`, the metric, and the last epoch again.
- On a failure: `failure` (the reason), `cause` (of `tune.trial_events.CAUSES`, where the trial's
  settings are to blame), `full` (where no trial could write), the worst value of the metric, and
  the last epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from finsent.adapters.ray_tune import flat_key

FINAL = "final"
MODEL_DIR = "model_dir"
FAILURE = "failure"
CAUSE = "cause"
FULL = "full"  # the plain form of the `DiskError` of a trial that could not write


@dataclass(frozen=True)
class TrialReport:
    """A report, as a callback or a searcher of Ray Tune gets it."""

    epoch: int | None
    metrics: Mapping[str, Any]  # the complete report
    epoch_seconds: float | None = None
    final: Mapping[str, Any] | None = None  # by objective
    model_dir: str | None = None
    failure: str | None = None
    cause: str | None = None
    full: tuple[Any, ...] | None = None

    @classmethod
    def parse(cls, result: Mapping[str, Any] | None) -> TrialReport:
        """Read a result of Ray Tune, nested or flat."""
        result = result or {}
        epoch, full, failure = result.get("epoch"), result.get(FULL), result.get(FAILURE)
        prefix = flat_key(FINAL, "")
        flat = {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}
        return cls(
            epoch=None if epoch is None else int(epoch),
            metrics=result,
            epoch_seconds=result.get("epoch_seconds"),
            final=result.get(FINAL) or flat or None,
            model_dir=result.get(MODEL_DIR),
            failure=None if failure is None else str(failure),
            cause=result.get(CAUSE),
            full=tuple(full) if full else None,
        )

    @property
    def is_last(self) -> bool:
        """Whether the trial ends itself with this report."""
        return self.failure is not None or self.final is not None


def is_finite(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
