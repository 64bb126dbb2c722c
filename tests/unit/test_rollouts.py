"""Rollouts on disk: decisions, restarts, writers at the same time, the audit log."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from finsent.errors import InputError
from finsent.registry.registry import Registry
from finsent.rollout.outcomes import Block, BlockBuilder, Outcomes, RequestOutcome, SignalCounts
from finsent.rollout.promotion import roll_back
from finsent.rollout.rollout_record import RolloutRecord
from finsent.rollout.rollouts import Rollouts
from finsent.rollout.shadows import ShadowCounts, Shadows
from finsent.storage import Location
from tests.unit import canaries

RULES = canaries.RULES.replaced(shares=(0.05, 1.0))


@pytest.fixture(scope="module")
def registry(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return canaries.published_pair(tiny, tmp_path_factory.mktemp("rollouts"))


@pytest.fixture
def rollouts(registry: Registry, tmp_path: Path) -> Rollouts:
    """Return the rollouts of an empty root; the alias `served` names the champion."""
    registry.promote("alias:champion", "served")
    return Rollouts(Location.at(tmp_path), registry)


def start(rollouts: Rollouts) -> RolloutRecord:
    versions = rollouts.registry.aliases()
    record = rollouts.start("served", versions["champion"], versions["challenger"], None, RULES)
    return rollouts.settle(record)


def blocks(errors: list[int], control_requests: int = 19) -> Outcomes:
    block: list[Block] = [{"error": SignalCounts(error, 0, control_requests)} for error in errors]
    return Outcomes(block)


def report(rollouts: Rollouts, record: RolloutRecord, outcomes: Outcomes) -> RolloutRecord:
    latest = rollouts.report(record.alias, record.id, outcomes)
    assert latest is not None
    return rollouts.settle(latest)


def actions(rollouts: Rollouts) -> list[str]:
    return [entry.decision.action for entry in rollouts.audit.entries()]


def test_a_version_without_errors_gets_the_alias(rollouts: Rollouts) -> None:
    record = start(rollouts)
    assert (record.share, record.status) == (0.05, "running")
    record = report(rollouts, record, blocks([0] * 20))
    assert (record.share, record.totals.requests) == (0.05, 20)
    record = report(rollouts, record, blocks([0] * 60))
    assert record.share == 1.0
    record = report(rollouts, record, blocks([0] * 80, 0))
    assert (record.status, record.share) == ("promoted", 0.0)
    assert rollouts.registry.aliases()["served"] == record.candidate
    assert actions(rollouts) == ["start", "advance", "promote"]
    assert "at most 0.1 more errors per request" in rollouts.audit.entries()[1].decision.reason


def test_errors_roll_back_with_the_reason(rollouts: Rollouts) -> None:
    record = report(rollouts, start(rollouts), blocks([0, 0, 1, 1, 1]))
    assert (record.status, record.share) == ("rolled back", 0.0)
    assert rollouts.registry.aliases()["served"] == record.champion
    decision = rollouts.audit.entries()[-1].decision
    assert decision.reason.startswith("3 of 5 requests to the canary failed, 0 of 95 others")
    assert decision.worse_wealth == pytest.approx(20.2)  # the limit, and signals without events
    later = report(rollouts, record, blocks([0] * 500))
    assert later.decisions == record.decisions


def test_a_restart_continues_the_evidence(rollouts: Rollouts) -> None:
    record = start(rollouts)
    report(rollouts, record, blocks([0, 1]))
    restarted = Rollouts(rollouts.root, rollouts.registry)
    assert report(restarted, record, blocks([0, 1, 1])).status == "rolled back"


def test_reports_at_the_same_time_are_all_counted(rollouts: Rollouts) -> None:
    record = start(rollouts)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(report, rollouts, record, blocks([0, 0]))
    latest = rollouts.get("served")
    assert latest is not None
    assert latest.totals.requests == 16


def test_a_decision_that_a_dead_process_left_is_carried_out_once(rollouts: Rollouts) -> None:
    record = start(rollouts)
    rollouts.report("served", record.id, blocks([0] * 80))
    latest = rollouts.report("served", record.id, blocks([0] * 80, 0))
    assert latest is not None
    assert (latest.status, actions(rollouts)) == ("promoting", ["start"])
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(rollouts.settle, [latest] * 4))
    assert {one.status for one in ended} == {"promoted"}
    assert actions(rollouts) == ["start", "advance", "promote"]


def test_a_rollback_undoes_a_promotion_of_the_same_moment(rollouts: Rollouts) -> None:
    record = start(rollouts)
    rollouts.report("served", record.id, blocks([0] * 80))
    rollouts.report("served", record.id, blocks([0] * 80, 0))
    rollouts.registry.promote(f"version:{record.candidate}", "served")  # by another process
    back = roll_back(rollouts, "served")
    assert (back.model_version, back.instead_of) == (record.champion, record.candidate)
    assert rollouts.registry.aliases()["served"] == record.champion
    ended = rollouts.get("served")
    assert ended is not None
    assert rollouts.settle(ended).status == "rolled back"


def test_an_alias_that_moves_ends_the_rollout(rollouts: Rollouts) -> None:
    record = start(rollouts)
    rollouts.registry.promote("alias:challenger", "served")
    ended = rollouts.settle(record)
    assert ended.status == "stopped"
    assert ended.decisions[-1].reason == f"the alias moved to {record.candidate} meanwhile"


def test_a_second_rollout_of_the_alias_is_refused(rollouts: Rollouts) -> None:
    start(rollouts)
    with pytest.raises(InputError, match=r"promote\.alias='served': a canary of .* gets 5%"):
        start(rollouts)


def test_outcomes_of_another_rollout_are_ignored(rollouts: Rollouts) -> None:
    record = start(rollouts)
    latest = rollouts.report("served", "another", blocks([1] * 10))
    assert latest is not None
    assert latest.totals == record.totals


# --- the audit log --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("how", ["changed", "deleted", "swapped"])
def test_a_manipulated_audit_log_is_found(rollouts: Rollouts, number: int, how: str) -> None:
    for i in range(4):
        rollouts.record_move("served", None, f"v{i}", "promote", f"reason {i}")
    files = sorted((rollouts.root.path / "audit").glob("*.json"))
    file = files[number - 1]
    if how == "changed":
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        content["decision"]["reason"] = "another reason"
        file.write_text(json.dumps(content), encoding="utf-8")
    elif how == "deleted":
        file.unlink()
    else:
        own, next_one = file.read_bytes(), files[number].read_bytes()
        file.write_bytes(next_one)
        files[number].write_bytes(own)
    with pytest.raises(InputError, match=r"audit/0000000[1-4]\.json"):
        rollouts.audit.entries()


# --- blocks ---------------------------------------------------------------------------------------


def test_a_block_has_the_requests_since_the_last_one_to_the_canary() -> None:
    builder = BlockBuilder(2.0)
    for is_error in (False, True, False):
        builder.add_control(RequestOutcome(is_error, None, None if is_error else False))
    builder.add_canary(RequestOutcome(False, 0.1, True))
    builder.add_canary(RequestOutcome(True, None, None))
    first, second = builder.take().blocks
    assert first == {"error": SignalCounts(0, 1, 3), "abstained": SignalCounts(1, 0, 2)}
    assert second == {"error": SignalCounts(1, 0, 0)}
    assert builder.take() == Outcomes()


def test_slow_is_judged_by_limits_that_were_set_before_the_block() -> None:
    builder = BlockBuilder(2.0)
    fast = RequestOutcome(False, 0.01, False)
    for _ in range(200):
        builder.add_control(fast)
    builder.add_canary(RequestOutcome(False, 9.0, False))  # no limit is known yet
    builder.add_control(RequestOutcome(False, 0.03, False))
    builder.add_canary(RequestOutcome(False, 0.015, False))
    first, second = builder.take().blocks
    assert "slow" not in first
    assert builder.slow_seconds == pytest.approx(0.02, rel=0.1)
    assert (second["slow"], second["slow_median"]) == (SignalCounts(0, 1, 1),) * 2


# --- shadows --------------------------------------------------------------------------------------


def counts(same: int, other: int) -> ShadowCounts:
    added = ShadowCounts(texts=same + other)
    added.confusion["neutral"]["neutral"] = same
    added.confusion["neutral"]["positive"] = other
    return added


def test_shadows_add_up_over_processes_and_get_a_verdict(tmp_path: Path) -> None:
    shadows = Shadows(Location.at(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(shadows.add, "a", "b", counts(99, 1))
    few = shadows.get("a", "b")
    assert few is not None
    assert (few.texts, few.same_labels, few.verdict(0.03)) == (400, 396, "undecided")
    for _ in range(30):
        shadows.add("a", "b", counts(99, 1))
    many = shadows.get("a", "b")
    assert many is not None
    assert many.verdict(0.03) == "equal within the margin"
    assert many.verdict(0.009) == "undecided"  # 1 % of the labels differ
    assert shadows.records() == [many]
