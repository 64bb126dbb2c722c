"""The test of drift beyond a tolerance."""

from __future__ import annotations

import numpy as np
import pytest

from finsent.errors import InputError
from finsent.monitoring.ranks import Ints
from finsent.monitoring.tolerance import ToleranceTest, _log_gains, share_bounds

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


def test_a_shift_within_the_tolerance_is_no_alarm_and_a_larger_one_is() -> None:
    test = ToleranceTest(REFERENCE, 0.03, 0.05, 100_000)
    assert not test.update(draw(0, [0.22, 0.48, 0.3], 6_000))
    assert test.update(draw(1, [0.32, 0.38, 0.3], 1_500))
    assert test.update(draw(2, [0.2, 0.5, 0.3], 1_000))


def test_a_tolerance_is_a_fraction() -> None:
    with pytest.raises(InputError, match="tolerance=3"):
        ToleranceTest(REFERENCE, 3, 0.05, 100_000)
