"""Ranks, alternatives, wealth and e-BH: exact values, and validity by enumeration."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from finsent.monitoring.detector import Detector
from finsent.monitoring.discovery import adjusted, e_bh, levels, rejected, weights
from finsent.monitoring.ranks import add_rows, uniforms
from finsent.monitoring.tilts import (
    SHAPES,
    Shape,
    alternative_weights,
    alternatives,
    log_densities,
    nominal_cells,
)
from finsent.monitoring.wealth import Wealth, stakes

HALF = np.full((1, 1), 0.5)


def rank_of(counts: list[int], cell: int) -> float:
    table = np.array([[counts]])
    return float(add_rows(table, np.zeros((1, 1), int), np.array([[cell]]), HALF)[0, 0])


def test_a_rank_counts_lower_rows_and_a_random_part_of_equal_rows() -> None:
    # Two rows below, and half of the three equal ones (the row itself is the third): 3.5 of 7.
    assert rank_of([2, 2, 2], 1) == pytest.approx((2 + 0.5 * 3) / 7)
    assert rank_of([0, 0, 0], 2) == pytest.approx(0.5)


def test_rows_of_a_batch_count_for_later_rows_of_their_stratum_only() -> None:
    counts = np.zeros((1, 2, 2), int)
    strata, cells = np.array([[0, 1, 0]]), np.array([[0, 0, 1]])
    ranks = add_rows(counts, strata, cells, np.full((1, 3), 0.5))
    assert ranks.tolist() == [[0.5, 0.5, (1 + 0.5) / 2]]
    assert counts.tolist() == [[[1, 1], [1, 0]]]


def test_ranks_do_not_depend_on_batches() -> None:
    random = np.random.default_rng(0)
    cells, strata = random.integers(0, 4, (2, 57)), random.integers(0, 2, (2, 57))
    randoms = random.random((2, 57))
    at_once, in_parts = np.ones((2, 2, 4), int), np.ones((2, 2, 4), int)
    expected = add_rows(at_once, strata, cells, randoms)
    parts = [
        add_rows(in_parts, strata[:, i : i + 10], cells[:, i : i + 10], randoms[:, i : i + 10])
        for i in range(0, 57, 10)
    ]
    assert np.array_equal(np.concatenate(parts, 1), expected)
    assert np.array_equal(at_once, in_parts)


def test_uniforms_are_a_function_of_seed_and_row() -> None:
    assert np.array_equal(uniforms(3, 0, 20)[5:], uniforms(3, 5, 15))
    assert not np.array_equal(uniforms(3, 0, 20), uniforms(4, 0, 20))
    sample = uniforms(7, 0, 20_000)
    assert abs(sample.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(sample[1:], sample[:-1])[0, 1]) < 0.03


def test_ranks_of_exchangeable_rows_are_independent_and_uniform_by_enumeration() -> None:
    """All orders of a bag, with random parts on a grid: each pair of ranks is equally frequent."""
    bag, reference, grid = [0, 0, 1, 2, 2], 3, 60
    midpoints = (np.arange(grid) + 0.5) / grid
    table = np.zeros((2, 2))
    for order in permutations(bag):
        first_rows = np.bincount(order[:reference], minlength=3)
        pairs = np.array(list(product(midpoints, midpoints)))
        counts = np.tile(first_rows, (len(pairs), 1, 1))
        cells = np.tile(order[reference:], (len(pairs), 1))
        ranks = add_rows(counts, np.zeros_like(cells), cells, pairs)
        np.add.at(table, tuple((ranks * 2).astype(int).T), 1)
    assert np.allclose(table / table.sum(), 0.25)


@pytest.mark.parametrize("shape", SHAPES)
def test_densities_of_alternatives_integrate_to_one(shape: Shape) -> None:
    nominal = np.array([[0.2, 0.5, 0.29, 0.01], [0.7, 0.1, 0.1, 0.1]])
    rows = alternatives(shape, nominal)
    assert np.allclose(rows.sum(-1), 1)
    assert (rows > 0).all()
    weights_of_rows = alternative_weights(shape, 4)
    assert weights_of_rows.shape == rows.shape[1:2]
    assert weights_of_rows.sum() == pytest.approx(1)
    densities = np.exp(log_densities(shape, nominal))
    assert np.allclose((densities * nominal[:, :, None]).sum(1), 1)


def test_an_alternative_moves_a_share_between_two_cells() -> None:
    rows = alternatives("few", np.array([[0.2, 0.5, 0.29, 0.01]]))[0]
    assert np.isclose(rows, [0.26, 0.44, 0.29, 0.01]).all(1).any()
    assert not np.isclose(rows[:, 0], 0).any()


def test_a_rank_belongs_to_the_cell_of_its_interval() -> None:
    edges = np.array([[[0.2, 0.7]]])
    ranks = np.array([[0.1, 0.2, 0.69, 0.7, 0.999]])
    cells = nominal_cells(edges, np.zeros((1, 5), int), ranks)
    assert cells.tolist() == [[0, 1, 1, 2, 2]]


def test_wealth_follows_its_recursion() -> None:
    wealth = Wealth.new(1, np.array([0.75, 0.25]))
    wealth.stake(0.5)
    wealth.bet(np.log([[2.0, 0.5]]))
    wealth.look()  # bets 1.0 and 0.25
    assert wealth.total()[0] == pytest.approx(0.5 + 0.75 * 1 + 0.25 * 0.25)
    wealth.stake(0.25)
    wealth.bet(np.log([[0.4, 1.0]]))
    wealth.look()  # bets 1.25 * 0.4 and 0.5
    assert wealth.total()[0] == pytest.approx(0.25 + 0.75 * 0.5 + 0.25 * 0.5)
    assert wealth.peak[0] == pytest.approx(1.3125)


def test_stakes_sum_to_the_initial_wealth() -> None:
    assert stakes(10_000).sum() == pytest.approx(1)
    assert (stakes(10_000) > 0).all()


def test_mean_wealth_without_drift_is_one() -> None:
    """Exact for uniform ranks, so the mean of many short streams is near 1."""
    random = np.random.default_rng(1)
    nominal = np.tile([[0.3, 0.4, 0.29, 0.01]], (4_000, 1, 1))
    drawn = random.choice(3, (4_000, 70), p=[0.25, 0.5, 0.25])
    counts = np.stack([np.bincount(row[:50], minlength=4) for row in drawn])[:, None]
    detector = Detector(nominal, counts, "few", 20, 5)
    detector.update(drawn[:, 50:])
    totals = detector.wealth.total()
    assert abs(totals.mean() - 1) < 3 * totals.std() / np.sqrt(4_000)
    assert totals.std() > 0.01


def test_adjusted_peaks_have_a_mean_of_at_most_one() -> None:
    """The worst peak has P(peak >= y) = 1/y; its adjusted value then has mean 1."""
    for signals in (1, 3, 10, 100):
        steps, added = levels(signals, 0.05)
        assert (added / steps).sum() == pytest.approx(1)
        assert adjusted(np.array([steps[0]]), signals, 0.05)[0] >= signals / 0.05


def test_e_bh_rejects_by_hand() -> None:
    # m = 4, alpha = 0.1: one rejection needs 40, two need 20, three need 13.3.
    assert e_bh(np.array([40.0, 1, 1, 1]), 0.1).tolist() == [True, False, False, False]
    assert e_bh(np.array([39.0, 1, 1, 1]), 0.1).tolist() == [False] * 4
    assert e_bh(np.array([21.0, 1, 20.0, 1]), 0.1).tolist() == [True, False, True, False]
    assert e_bh(np.array([14.0, 14, 1, 14]), 0.1).tolist() == [True, True, False, True]


def test_the_main_signal_has_most_of_the_budget() -> None:
    parts = weights(["label", "length", "topic"], "label")
    assert parts.tolist() == pytest.approx([2.1, 0.45, 0.45])
    assert rejected(np.array([40.0, 1, 1]), parts, 0.05)[0]
    assert not rejected(np.array([1.0, 40, 1]), parts, 0.05).any()
    assert weights(["length"], "label").tolist() == [1]
