"""The rollout of a service, as /info reports it."""

from __future__ import annotations

from typing import TypedDict

from finsent.rollout.rollout_record import RolloutRecord


class DecisionInfo(TypedDict):
    """A decision on a rollout."""

    at: str
    action: str
    share: float
    reason: str


class RolloutInfo(TypedDict):
    """The latest rollout of the followed alias."""

    alias: str
    status: str
    champion: str  # version that had the alias when the rollout began
    candidate: str
    share: float  # of the requests that the candidate gets
    shares: list[float]  # by stage
    requests: int  # to the candidate
    errors: int  # of the candidate; the current version answered these requests
    control_requests: int  # to the current version
    control_errors: int
    compared: int  # texts that both versions answered
    disagreements: int
    worse_evidence: float  # `limit` rolls back
    safe_evidence: float  # `limit` ends the stage
    limit: float
    decisions: list[DecisionInfo]


def describe_rollout(record: RolloutRecord) -> RolloutInfo:
    """Return a rollout as JSON."""
    test, totals = record.test(), record.totals
    return {
        "alias": record.alias,
        "status": record.status,
        "champion": record.champion,
        "candidate": record.candidate,
        "share": record.share,
        "shares": list(record.rules.shares),
        "requests": totals.requests,
        "errors": totals.errors,
        "control_requests": totals.control_requests,
        "control_errors": totals.control_errors,
        "compared": totals.compared,
        "disagreements": totals.disagreements,
        "worse_evidence": test.worse_wealth,
        "safe_evidence": test.safe_wealth,
        "limit": 1 / record.rules.alpha,
        "decisions": [
            {
                "at": decision.at,
                "action": decision.action,
                "share": decision.share,
                "reason": decision.reason,
            }
            for decision in record.decisions
        ],
    }
