"""The outcomes of the gates of a promotion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finsent.registry.gate import Clearance

GateOutcome = Literal["passed", "refused", "not judged"]


@dataclass(frozen=True)
class GateResult:
    """The outcome of one gate."""

    gate: str
    outcome: GateOutcome
    reason: str


@dataclass(frozen=True)
class GateReport:
    """The outcomes of all gates."""

    results: list[GateResult]
    clearance: Clearance | None  # of the offline comparison; None: refused

    @property
    def refusals(self) -> list[GateResult]:
        """The gates that refuse the version."""
        return [result for result in self.results if result.outcome == "refused"]
