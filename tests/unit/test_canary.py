"""Decisions on a canary: exact gains, validity by enumeration, stages and state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from finsent.errors import InputError
from finsent.monitoring.canary import (
    ODDS_RATIOS,
    ODDS_WEIGHTS,
    SHARES,
    CanaryState,
    CanaryTest,
    Events,
    disagreement_gains,
    event_logs,
    safe_gains,
)

NONE = np.zeros(0, np.int64)


def blocks(canary: list[int], control: list[int], requests: int) -> Events:
    return Events(np.array(canary), np.array(control), np.full(len(canary), requests))


def errors(canary: list[int], requests: int = 19) -> dict[str, Events]:
    return {"error": blocks(canary, [0] * len(canary), requests)}


START = np.zeros(len(ODDS_RATIOS))
NO_LIMIT = 1e9


def gains(block: Events, limit: float = NO_LIMIT, logs: npt.NDArray[np.float64] = START) -> Any:
    return np.exp(event_logs(logs, block, limit) - logs)


def test_gains_by_hand() -> None:
    ratio = ODDS_RATIOS
    assert np.allclose(gains(blocks([1], [0], 3)), ratio / (1 + (ratio - 1) / 4))
    assert np.allclose(gains(blocks([0], [1], 3)), 1 / (1 + (ratio - 1) / 4))
    assert np.allclose(gains(blocks([0, 1], [0, 3], 3)), 1)  # no event, an event in each request
    both = gains(blocks([1, 0], [0, 1], 3))
    assert np.allclose(both, gains(blocks([1], [0], 3)) * gains(blocks([0], [1], 3)))


@pytest.mark.parametrize("limit", [NO_LIMIT, 1.5])
@pytest.mark.parametrize("requests", [0, 1, 4, 19])
def test_the_mean_gain_is_one_whichever_request_is_the_canary(requests: int, limit: float) -> None:
    """All numbers of events in a block: the canary is one of k + 1 exchangeable requests."""
    for events in range(requests + 2):
        chance = events / (requests + 1)
        mean = 0.0
        for canary, probability in ((1, chance), (0, 1 - chance)):
            if probability:
                gain = gains(blocks([canary], [events - canary], requests), limit)
                assert ODDS_WEIGHTS @ gain <= limit * (1 + 1e-9)
                mean += probability * float(ODDS_WEIGHTS @ gain)
        assert mean == pytest.approx(1)


def test_a_bet_that_would_overshoot_the_limit_loses_less_in_return() -> None:
    event, none = blocks([1], [0], 19), blocks([0], [1], 19)
    assert ODDS_WEIGHTS @ gains(event, 2.0) == pytest.approx(2.0)
    assert (gains(none, 2.0) > gains(none)).all()


def test_bets_on_disagreement_lose_at_the_allowed_rate_and_below() -> None:
    gains = np.exp(disagreement_gains(np.array([0, 1]), 0.1))
    assert np.allclose(0.9 * gains[0] + 0.1 * gains[1], 1)
    assert (0.95 * gains[0] + 0.05 * gains[1] < 1).all()


def test_bets_on_safety_lose_at_the_margin_and_above() -> None:
    for base in (0.0, 0.1):
        rows = [(canary, control) for canary in (0, 1) for control in (0, 1)]
        for more, most in ((0.02, 1.0), (0.05, 0.999)):
            chances = {0: (1 - base - more, base + more), 1: (1 - base, base)}
            mean = sum(
                chances[0][canary]
                * chances[1][control]
                * np.exp(safe_gains(blocks([canary], [control], 1), 0.02)[0])
                for canary, control in rows
            )
            assert (mean <= most + 1e-12).all()


def test_errors_roll_back_for_good() -> None:
    test = CanaryTest(0.02, 0.1)
    assert test.update(errors([0] * 20), NONE) == "hold"
    assert test.update(errors([1, 1, 1]), NONE) == "roll back"
    assert test.update(errors([0] * 1_000), NONE) == "roll back"
    with pytest.raises(ValueError, match="decision=roll back"):
        test.advance()


def test_errors_of_both_versions_are_no_evidence() -> None:
    test = CanaryTest(0.02, 0.1)
    assert test.update({"error": blocks([1] * 50, [19] * 50, 19)}, NONE) == "hold"
    assert all(value == pytest.approx(0) for value in test.state.log_worse["error"])
    assert test.worse_wealth == pytest.approx(1)


def test_each_signal_can_roll_back() -> None:
    for name in ("slow", "slow_median", "abstained"):
        test = CanaryTest(0.02, 0.1)
        assert test.update({name: blocks([1] * 6, [0] * 6, 19)}, NONE) == "roll back"
    test = CanaryTest(0.02, 0.1)
    assert test.update({}, np.array([1, 0] * 20)) == "roll back"
    assert CanaryTest(0.02, 0.1).update({}, np.array([1] + [0] * 19)) == "hold"


def test_stages_end_by_enough_requests_without_errors() -> None:
    test = CanaryTest(0.02, 0.1)
    assert test.update(errors([0] * 150), NONE) == "hold"
    with pytest.raises(ValueError, match="decision=hold"):
        test.advance()
    assert test.update(errors([0] * 150), NONE) == "advance"
    assert test.advance() == SHARES[1]
    assert test.state.stage_requests == 0
    assert test.state.requests == 300
    assert test.decision() == "hold"


def test_the_last_stage_is_known() -> None:
    test = CanaryTest(0.02, 0.1, shares=(0.5, 1.0))
    assert (test.share, test.is_last_stage) == (0.5, False)
    test.update(errors([0] * 300), NONE)
    assert test.advance() == 1.0
    assert test.is_last_stage


def test_a_restart_continues_the_rollout(tmp_path: Path) -> None:
    at_once, first = CanaryTest(0.02, 0.1), CanaryTest(0.02, 0.1)
    flags = [0, 1, 0, 0, 0, 0, 1, 0]
    at_once.update(errors(flags), np.array(flags))
    first.update(errors(flags[:3]), np.array(flags[:3]))
    first.state.write(tmp_path / "canary.json")
    second = CanaryTest(0.02, 0.1, state=CanaryState.read(tmp_path / "canary.json"))
    second.update(errors(flags[3:]), np.array(flags[3:]))
    assert second.state.log_safe == pytest.approx(at_once.state.log_safe)
    for name, values in at_once.state.log_worse.items():
        assert second.state.log_worse[name] == pytest.approx(values)


def test_rates_of_wrong_rollbacks_and_of_missed_errors() -> None:
    """100 rollouts of 500 requests at a share of 5 %, with 0.1 % errors of the current version."""
    random = np.random.default_rng(0)
    stopped = {}
    for rate in (0.001, 0.021):
        count = 0
        for _ in range(100):
            test = CanaryTest(0.02, 0.1)
            for _ in range(10):
                flags = (random.random(50) < rate).astype(np.int64)
                events = Events(flags, random.binomial(19, 0.001, 50), np.full(50, 19))
                decision = test.update({"error": events}, NONE)
            count += decision == "roll back"
        stopped[rate] = count
    assert stopped[0.001] <= 5
    assert stopped[0.021] >= 95


@pytest.mark.parametrize("field", ["margin", "allowed_disagreement", "alpha"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_limit_of_nothing_or_all_is_refused(field: str, value: float) -> None:
    """No disagreement at all would make one disagreement infinite evidence."""
    limits = {"margin": 0.02, "allowed_disagreement": 0.1, "alpha": 0.05, field: value}
    with pytest.raises(InputError, match=f"{field}={value}: not between 0 and 1"):
        CanaryTest(limits["margin"], limits["allowed_disagreement"], limits["alpha"])
