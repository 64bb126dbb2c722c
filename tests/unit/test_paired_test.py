"""The sequential test of two versions by labeled texts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from finsent.monitoring.paired import (
    PairedRows,
    PairedState,
    PairedTest,
    _log_mixture,
    difference_bounds,
    log_likelihood,
)


@pytest.mark.parametrize("difference", [-0.3, -0.05, 0.0, 0.02, 0.4])
@pytest.mark.parametrize("counts", [(3, 5, 92), (0, 4, 20), (4, 0, 20), (0, 0, 9), (2, 7, 0)])
def test_the_likelihood_is_the_largest_of_a_grid(
    counts: tuple[int, int, int], difference: float
) -> None:
    rows = PairedRows(*counts)
    low, high = max(0.0, -difference), (1 - difference) / 2
    shares = np.linspace(low, high, 20_001)[1:-1]
    with np.errstate(divide="ignore"):
        values = (
            rows.only_a * np.log(shares)
            + rows.only_b * np.log(shares + difference)
            + rows.same * np.log(1 - 2 * shares - difference)
        )
    assert log_likelihood(rows, difference) >= values.max() - 1e-9
    assert log_likelihood(rows, difference) == pytest.approx(values.max(), abs=5e-3)


def test_the_bound_of_equal_answers_by_hand() -> None:
    """All rows are the same: the ratio at a difference d > 0 is m / (1 - d)^n."""
    _, upper = difference_bounds(PairedRows(0, 0, 100), 0.05)
    log_mixture = math.lgamma(1.5) - math.lgamma(0.5) + math.lgamma(100.5) - math.lgamma(101.5)
    assert upper == pytest.approx(1 - math.exp((log_mixture - math.log(20)) / 100), abs=1e-8)


def test_the_mixture_is_a_mean_of_likelihoods() -> None:
    """The likelihoods of all outcomes of four rows sum to 1."""
    total = 0.0
    for a in range(5):
        for b in range(5 - a):
            same = 4 - a - b
            ways = math.factorial(4) / math.prod(map(math.factorial, (a, b, same)))
            total += ways * math.exp(_log_mixture(PairedRows(a, b, same)))
    assert total == pytest.approx(1)


def test_bounds_mirror_when_the_versions_change_places() -> None:
    low, high = difference_bounds(PairedRows(7, 21, 300), 0.05)
    other_low, other_high = difference_bounds(PairedRows(21, 7, 300), 0.05)
    assert (low, high) == pytest.approx((-other_high, -other_low))
    assert low < 14 / 328 < high


@pytest.mark.parametrize("count", [1, 30, 400])
def test_rows_that_favor_one_version_only(count: int) -> None:
    low, high = difference_bounds(PairedRows(0, count, 0), 0.05)
    assert high == 1
    assert low == pytest.approx(-difference_bounds(PairedRows(count, 0, 0), 0.05)[1])
    assert (low > 0) == (count >= 30)


def test_verdicts() -> None:
    assert PairedTest(0.02).verdict() == "undecided"
    assert PairedTest(0.02).update(PairedRows(10, 80, 900)) == "better"
    assert PairedTest(0.02).update(PairedRows(80, 10, 900)) == "worse"
    assert PairedTest(0.02).update(PairedRows(10, 11, 2_000)) == "equal within the margin"
    assert PairedTest(0.02).update(PairedRows(3, 5, 100)) == "undecided"


def test_bounds_only_become_narrower_and_survive_a_restart(tmp_path: Path) -> None:
    test = PairedTest(0.02)
    test.update(PairedRows(0, 40, 300))
    lower = test.state.lower
    test.state.write(tmp_path / "state.json")
    test = PairedTest(0.02, state=PairedState.read(tmp_path / "state.json"))
    test.update(PairedRows(30, 0, 0))
    assert test.state.lower == lower
    assert (test.state.only_a, test.state.only_b, test.state.same) == (30, 40, 300)


def test_bounds_hold_the_true_difference_at_all_moments() -> None:
    random = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        test = PairedTest(0.02)
        for _ in range(20):
            a, b, same = random.multinomial(20, [0.03, 0.06, 0.91])
            test.update(PairedRows(int(a), int(b), int(same)))
        missed += not test.state.lower <= 0.03 <= test.state.upper
    assert missed <= 5
