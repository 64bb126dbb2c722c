"""The choice of a version for each request, as a service uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from finsent.inference.config import Truncate
from finsent.rollout.rollout_record import RolloutRecord
from serve_app.sender import Sender
from serve_app.service.answer import Answers
from serve_app.service.coalescer import Timing


@dataclass
class RouterCounts:
    """Requests during rollouts, by the version that answered."""

    canary: int = 0
    fallback: int = 0  # that the current version answered in the canary's place
    current: int = 0


class RequestRouter(Protocol):
    """Chooses the version that answers a request."""

    counts: RouterCounts
    record: RolloutRecord | None  # the latest rollout of the followed alias

    @property
    def is_active(self) -> bool:
        """Whether a version besides the followed one answers requests."""

    async def classify(
        self, texts: Sequence[str], truncate: Truncate | None, source: str | None, sender: Sender
    ) -> tuple[Answers, Timing]:
        """Return an answer or a problem for each text; see `Service.classify`."""

    async def watch(self) -> None:
        """Follow the rollouts forever."""

    async def close(self) -> None:
        """Report the outcomes that wait."""
