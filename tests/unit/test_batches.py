"""Batches: every row once per epoch, the same on every rank, with little padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finsent.training.batches import (
    Indices,
    count_steps,
    epoch_batches,
    rank_rows,
    sorted_batches,
)


def uneven_lengths(rows: int, seed: int = 0) -> Indices:
    """Return token counts like those of financial sentences: many short, a few long."""
    lengths = np.random.default_rng(seed).lognormal(3.3, 0.5, rows)
    return np.clip(lengths, 3, 128).astype(np.int64)


def padding_share(batches: list[Indices], lengths: Indices) -> float:
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - int(lengths.sum()) / padded


def order(batches: list[Indices]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


# rows, batch size, batches in a window
SHAPES = [(1, 1, 1), (1, 8, 50), (7, 8, 1), (64, 8, 3), (97, 8, 2), (97, 8, 500), (100, 1, 7)]


@pytest.mark.parametrize(("rows", "size", "window"), SHAPES)
def test_each_row_is_seen_once_an_epoch(rows: int, size: int, window: int) -> None:
    lengths = uneven_lengths(rows)
    for epoch in range(3):
        batches = epoch_batches(lengths, size, window, seed=5, epoch=epoch)
        assert sorted(np.concatenate(batches).tolist()) == list(range(rows))


@pytest.mark.parametrize(("rows", "size", "window"), SHAPES)
def test_all_batches_are_full_but_one(rows: int, size: int, window: int) -> None:
    batches = epoch_batches(uneven_lengths(rows), size, window, seed=5, epoch=0)
    assert len(batches) == -(-rows // size)
    full, left = divmod(rows, size)
    assert sorted(map(len, batches)) == sorted([size] * full + [left] * (left > 0))


def test_no_rows_make_no_batches() -> None:
    assert epoch_batches(np.array([], np.int64), 8, 2, seed=5, epoch=0) == []


def test_every_process_computes_the_same_batches() -> None:
    """Ranks exchange no messages, so the batches depend on the arguments only."""
    batches = epoch_batches(uneven_lengths(97), 8, 3, seed=5, epoch=2)
    np.random.seed(1)  # somebody else's global state
    again = epoch_batches(uneven_lengths(97), 8, 3, seed=5, epoch=2)
    assert order(batches) == order(again)


def test_seed_and_epoch_decide_the_order() -> None:
    lengths = uneven_lengths(97)
    orders = {
        str(order(epoch_batches(lengths, 8, 3, seed=seed, epoch=epoch)))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_epochs_mix_rows_into_other_batches() -> None:
    """Another order of the same batches would not be enough gradient noise."""
    lengths = uneven_lengths(256)
    first, second = (
        {frozenset(b.tolist()) for b in epoch_batches(lengths, 8, 4, seed=1, epoch=epoch)}
        for epoch in range(2)
    )
    assert len(first & second) <= 1


def test_long_and_short_batches_are_mixed() -> None:
    """No sweep from short to long within an epoch, which would bias the schedule's ends."""
    lengths = uneven_lengths(800)
    means = [lengths[b].mean() for b in epoch_batches(lengths, 8, 50, seed=1, epoch=0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_sorting_by_length_saves_most_of_the_padding() -> None:
    lengths = uneven_lengths(3200)
    bucketed = padding_share(epoch_batches(lengths, 32, 50, seed=1, epoch=0), lengths)
    random = padding_share(epoch_batches(lengths, 32, 1, seed=1, epoch=0), lengths)
    assert random > 0.4  # a window of one batch has random rows
    assert bucketed < 0.05


# --- by a budget of tokens ---


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=200),
    budget=st.integers(8, 300),
    window=st.integers(1, 6),
)
def test_budget_holds_and_each_row_is_seen_once(
    lengths: list[int], budget: int, window: int
) -> None:
    tokens = np.array(lengths, np.int64)
    batches = epoch_batches(tokens, 8, window, seed=3, epoch=1, batch_tokens=budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(tokens)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * tokens[batch].max() <= budget
    assert count_steps(tokens, 8, window, 3, 2, budget)[1] == len(batches)


def test_budget_is_used() -> None:
    lengths = uneven_lengths(3200)
    batches = epoch_batches(lengths, 32, 50, seed=1, epoch=0, batch_tokens=1024)
    used = np.array([len(b) * lengths[b].max() for b in batches])
    assert np.median(used) > 0.95 * 1024
    assert padding_share(batches, lengths) < 0.05
    assert len({len(b) for b in batches}) > 10


def test_steps_are_counted_without_a_budget_too() -> None:
    assert count_steps(uneven_lengths(97), 8, 2, 5, 3) == [13, 13, 13]
    assert count_steps(uneven_lengths(0), 8, 2, 5, 1) == [0]


# --- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [1, 2, 7, 8])
def test_ranks_partition_a_batch_evenly(rows: int, world: int) -> None:
    batch = np.arange(100, 100 + rows, dtype=np.int64)
    shares = [rank_rows(batch, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(shares).tolist()) == batch.tolist()
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_ranks_get_rows_of_about_the_same_length() -> None:
    """No rank waits for one with longer rows at the gradient exchange."""
    lengths = uneven_lengths(3200)
    batches = epoch_batches(lengths, 32, 50, seed=1, epoch=0)
    longest = np.array(
        [[lengths[rank_rows(b, rank, 2)].max() for rank in range(2)] for b in batches]
    )
    assert np.median(np.ptp(longest, axis=1) / longest.max(axis=1)) < 0.05


@pytest.mark.parametrize("rows", [0, 1, 31, 64, 65])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_visits_each_row_on_exactly_one_rank(rows: int, world: int) -> None:
    lengths = uneven_lengths(rows)
    by_rank = [sorted_batches(lengths, rank, world, batch_size=8) for rank in range(world)]
    seen = [row for batches in by_rank for batch in batches for row in batch.tolist()]
    assert sorted(seen) == list(range(rows))
    assert all(0 < len(batch) <= 8 for batches in by_rank for batch in batches)


def test_evaluation_starts_with_the_longest_rows() -> None:
    """A lack of memory then shows at once, not at the end."""
    lengths = uneven_lengths(65)
    batches = sorted_batches(lengths, rank=0, world_size=1, batch_size=8)
    ordered = lengths[np.concatenate(batches)]
    assert ordered[0] == lengths.max()
    assert (np.diff(ordered) <= 0).all()
