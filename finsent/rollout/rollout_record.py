"""The record of a rollout: versions, rules, state of the test, and decisions."""

from __future__ import annotations

from typing import Literal

from finsent.monitoring.canary import CanaryState, CanaryTest
from finsent.records import Record
from finsent.registry.gate import Gate

Status = Literal["running", "promoting", "promoted", "rolled back", "stopped"]
Action = Literal["start", "advance", "promote", "roll back", "stop"]


class RolloutRules(Record):
    """The rules of a rollout, which do not change while it runs; see `PromoteConfig`."""

    shares: tuple[float, ...]  # of the requests, by stage
    margin: float
    allowed_disagreement: float
    alpha: float
    slow_factor: float
    compare_share: float


class RolloutTotals(Record):
    """Counts over all stages of a rollout."""

    requests: int = 0  # to the canary
    errors: int = 0  # of the canary; the current version answered these requests
    control_requests: int = 0  # to the current version
    control_errors: int = 0
    slow: int = 0  # requests to the canary
    abstained: int = 0  # requests to the canary
    compared: int = 0  # texts that both versions answered
    disagreements: int = 0

    def plus(self, other: RolloutTotals) -> RolloutTotals:
        """Return the sums."""
        values = {
            name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields
        }
        return RolloutTotals(**values)


class RolloutDecision(Record):
    """A decision, with the numbers that it was made by."""

    number: int  # within the rollout, from 1
    at: str  # ISO 8601
    action: Action
    share: float  # of the requests, from this decision on
    reason: str
    totals: RolloutTotals
    evidence: dict[str, float]  # for "worse" by signal, as wealth; without evidence 1
    worse_wealth: float  # 1 / alpha rolls back
    safe_wealth: float  # 1 / alpha ends a stage


class RolloutRecord(Record):
    """The content of `ROOT/rollouts/ALIAS.json`: the alias's latest rollout."""

    schema_version: Literal[1] = 1
    id: str  # that no other rollout has
    alias: str
    champion: str  # version that had the alias when the rollout began
    candidate: str  # version of the canary
    gate: Gate | None  # that the candidate passed; None: no comparison was needed
    rules: RolloutRules
    status: Status = "running"
    canary: CanaryState = CanaryState()
    totals: RolloutTotals = RolloutTotals()
    decisions: tuple[RolloutDecision, ...] = ()
    audited: int = 0  # decisions that are in the audit log

    @classmethod
    def remedy(cls) -> str:
        """Return what the user does about a damaged rollout."""
        return "Delete the file and start the rollout again."

    @property
    def is_open(self) -> bool:
        """Whether the rollout has not ended."""
        return self.status in ("running", "promoting")

    @property
    def share(self) -> float:
        """Share of the requests that the candidate gets."""
        return self.decisions[-1].share if self.decisions and self.is_open else 0.0

    def test(self) -> CanaryTest:
        """Return the test in its present state."""
        rules = self.rules
        return CanaryTest(
            rules.margin, rules.allowed_disagreement, rules.alpha, self.canary, rules.shares
        )
