"""The test of drift beyond a tolerance."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from finsent.errors import InputError
from finsent.monitoring.ranks import Ints
from finsent.monitoring.tolerance import ToleranceState, ToleranceTest, _log_gains, share_bounds

REFERENCE = np.array([1_000, 2_500, 1_500])


def draw(seed: int, mix: list[float], rows: int) -> Ints:
    return np.random.default_rng(seed).choice(len(mix), rows, p=mix)


def test_bounds_of_shares_by_hand() -> None:
    """No row of ten: the upper bound solves (1 - p)^10 = part; all rows of ten, the mirror."""
    lower, upper = share_bounds(np.array([0, 10]), 0.08)
    assert upper[0] == pytest.approx(1 - 0.02**0.1)
    assert lower.tolist() == pytest.approx([0, 0.02**0.1])
    assert upper[1] == 1


def test_mean_gains_are_at_most_one_within_the_bounds() -> None:
    lower, upper = np.array([0.1, 0.3, -0.1]), np.array([0.3, 0.6, 0.2])
    gains = np.exp(_log_gains(lower, upper))
    for shares in ([0.3, 0.5, 0.2], [0.2, 0.6, 0.2], [0.3, 0.6, 0.1]):
        assert (np.array(shares) @ gains <= 1 + 1e-12).all()
    assert (np.array([0.5, 0.4, 0.1]) @ gains).max() > 1.05


def test_a_bound_next_to_an_end_gives_no_bet() -> None:
    """No share is between this bound and the largest share of a bet."""
    lower, upper = np.array([-0.1, 1e-7]), np.array([1 - 1e-7, 1.1])
    gains = np.exp(_log_gains(lower, upper))
    for share in (0.5, 1 - 2e-7):
        assert (np.array([share, 1 - share]) @ gains <= 1 + 1e-12).all()


def test_a_shift_within_the_tolerance_is_no_alarm_and_a_larger_one_is() -> None:
    test = ToleranceTest(REFERENCE, 0.03, 0.05, 100_000)
    assert not test.update(draw(0, [0.22, 0.48, 0.3], 6_000))
    assert test.update(draw(1, [0.32, 0.38, 0.3], 1_500))
    assert test.update(draw(2, [0.2, 0.5, 0.3], 1_000))


def test_a_tolerance_is_a_fraction() -> None:
    with pytest.raises(InputError, match="tolerance=3"):
        ToleranceTest(REFERENCE, 3, 0.05, 100_000)
    with pytest.raises(InputError, match="reference=0 rows"):
        ToleranceTest(np.zeros(3, int), 0.03, 0.05, 100_000)


def test_state_continues_where_the_test_ended(tmp_path: Path) -> None:
    rows = draw(3, [0.45, 0.25, 0.3], 400)
    at_once = ToleranceTest(REFERENCE, 0.03, 0.05, 100_000)
    at_once.update(rows)
    first_test = ToleranceTest(REFERENCE, 0.03, 0.05, 100_000)
    first_test.update(rows[:123])
    first_test.state().write(tmp_path / "state.json")
    state = ToleranceState.read(tmp_path / "state.json")
    second = ToleranceTest(REFERENCE, 0.03, 0.05, 100_000, state)
    second.update(rows[123:])
    assert second.state() == at_once.state()
    assert at_once.state().peak > 1


def test_another_or_a_damaged_state_is_refused() -> None:
    state = ToleranceTest(REFERENCE, 0.03, 0.05, 100_000).state()
    with pytest.raises(InputError, match=r"state.tolerance=0.03: this test has 0.02"):
        ToleranceTest(REFERENCE, 0.02, 0.05, 100_000, state)
    with pytest.raises(InputError, match=r"state.reference="):
        ToleranceTest(REFERENCE[::-1], 0.03, 0.05, 100_000, state)
    for damage in ({"staked": [1.0]}, {"peak": math.nan}):
        with pytest.raises(InputError, match="state: the wealth is damaged"):
            ToleranceTest(REFERENCE, 0.03, 0.05, 100_000, state.replaced(**damage))
