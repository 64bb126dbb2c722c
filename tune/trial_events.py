"""Events of a sweep's trials, as `trials.jsonl` stores them: one JSON object per line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from finsent.records import JsonObject, Record

DIVERGED, MEMORY = "diverged", "memory"
CAUSES = (DIVERGED, MEMORY)  # of failures for which a trial's settings are to blame
TrialStatus = Literal["finished", "stopped", "diverged", "failed", "interrupted", "running"]


class TrialEvent(Record):
    """An event of one trial."""

    event: str
    trial: int  # number
    time: float  # Unix seconds


class TrialStarted(TrialEvent):
    """A trial starts, resumes, or takes over another trial's settings (PBT)."""

    event: Literal["start"] = "start"
    params: JsonObject  # by config key; conditional keys may be missing
    source: str  # known, search, resumed or pbt


class EpochEnded(TrialEvent):
    """A trial has finished an epoch."""

    event: Literal["epoch"] = "epoch"
    epoch: int  # from 1
    metrics: dict[str, float | None]
    seconds: float | None = None  # duration of the epoch


class TrialEnded(TrialEvent):
    """A trial has ended, for good or until the sweep resumes."""

    event: Literal["end"] = "end"
    status: TrialStatus
    reason: str | None = None  # of a stop, a divergence, a failure or an interruption
    epochs: int
    seconds: float | None = None  # of work
    values: dict[str, float | None] = Field(default_factory=dict)  # by objective
    checkpoint: str | None = None  # the model's directory
    cause: str | None = None  # of a failure: one of CAUSES, or None


class SuggestionRepeated(TrialEvent):
    """The search has suggested a trial's settings again, which are not trained again."""

    event: Literal["repeat"] = "repeat"


Event = TrialStarted | EpochEnded | TrialEnded | SuggestionRepeated
EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def finite_values(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the finite numbers of a mapping."""
    return {k: v for k, v in values.items() if v is not None and math.isfinite(v)}
