"""Decisions on a rollout: pure functions from a record and new outcomes to the next record."""

from __future__ import annotations

import numpy as np

from finsent.monitoring.canary import WEIGHTS, CanaryTest
from finsent.rollout.outcomes import Outcomes
from finsent.rollout.rollout_record import Action, RolloutDecision, RolloutRecord, Status


def begin(record: RolloutRecord, at: str) -> RolloutRecord:
    """Return a new rollout with its first decision.

    Args:
        at: time of the decision, ISO 8601.
    """
    test = record.test()
    reason = f"the canary gets {test.share:.0%} of the requests"
    return _decided(record, test, "start", "running", test.share, reason, at)


def judge(record: RolloutRecord, outcomes: Outcomes, at: str) -> RolloutRecord:
    """Return the rollout after more outcomes: held, advanced, or rolled back.

    Args:
        record: of a running rollout.
        at: time of the decision, ISO 8601.
    """
    test = record.test()
    decision = test.update(outcomes.events(), np.array(outcomes.disagreements, np.int64))
    totals = record.totals.plus(outcomes.totals())
    record = record.replaced(canary=test.state, totals=totals)
    if decision == "roll back":
        return _decided(record, test, "roll back", "rolled back", 0.0, _worse(record, test), at)
    if decision == "hold":
        return record
    safety = (
        f"at most {record.rules.margin:g} more errors per request, by "
        f"{test.state.stage_requests:,} requests of the stage"
    )
    if test.is_last_stage:
        return _decided(record, test, "promote", "promoting", test.share, safety, at)
    evidence = test.safe_wealth
    share = test.advance()
    record = record.replaced(canary=test.state)
    return _decided(record, test, "advance", "running", share, safety, at, evidence)


def end(
    record: RolloutRecord, action: Action, status: Status, reason: str, at: str
) -> RolloutRecord:
    """Return an open rollout that ends for another reason than its outcomes.

    Args:
        action: "roll back" or "stop".
        at: time of the decision, ISO 8601.
    """
    return _decided(record, record.test(), action, status, 0.0, reason, at)


def _decided(
    record: RolloutRecord,
    test: CanaryTest,
    action: Action,
    status: Status,
    share: float,
    reason: str,
    at: str,
    safe_wealth: float | None = None,
) -> RolloutRecord:
    decision = RolloutDecision(
        number=len(record.decisions) + 1,
        at=at,
        action=action,
        share=share,
        reason=reason,
        totals=record.totals,
        evidence=test.evidence(),
        worse_wealth=test.worse_wealth,
        safe_wealth=test.safe_wealth if safe_wealth is None else safe_wealth,
    )
    return record.replaced(status=status, decisions=(*record.decisions, decision))


def _worse(record: RolloutRecord, test: CanaryTest) -> str:
    """Return why a canary is rolled back: the signal with the most evidence, and its counts."""
    evidence = test.evidence()
    name = max(evidence, key=lambda name: WEIGHTS[name] * evidence[name])
    totals = record.totals
    counts = {
        "error": f"{totals.errors:,} of {totals.requests:,} requests to the canary failed, "
        f"{totals.control_errors:,} of {totals.control_requests:,} others",
        "slow": f"{totals.slow:,} of {totals.requests:,} requests to the canary were slow",
        "slow_median": "the median time of the canary is too long",
        "abstained": f"the canary abstained in {totals.abstained:,} of {totals.requests:,} "
        "requests",
        "disagreement": f"the canary gave another label to {totals.disagreements:,} of "
        f"{totals.compared:,} texts",
    }
    return f"{counts[name]} (evidence {test.worse_wealth:.3g}, limit {1 / record.rules.alpha:g})"
