"""Which rows make a micro-batch."""

from __future__ import annotations

from operator import mul

from hypothesis import given
from hypothesis import strategies as st

from serve_app.service.packing import best_run

ROWS = (1, 2, 4, 8, 16)


def rounded(rows: int, longest: int) -> int:
    """As OpenVINO's shapes are."""
    return next(n for n in ROWS if n >= rows) * (-(-longest // 8) * 8)


def test_rows_of_equal_length_share_a_batch() -> None:
    lengths = [8] * 20 + [16] * 16 + [60] * 4
    assert best_run(lengths, 25, 16, 1024, rounded) == (20, 36)


def test_a_long_row_is_not_batched_with_short_rows() -> None:
    lengths = [10] * 15 + [100]
    start, end = best_run(lengths, 15, 16, 4096, mul)
    assert end == 16
    assert end - start <= 2


def test_a_row_over_the_budget_is_a_batch_of_one() -> None:
    assert best_run([20, 20, 600], 2, 16, 512, mul) == (2, 3)


def test_nine_rows_are_not_padded_to_sixteen() -> None:
    start, end = best_run([32] * 9, 0, 16, 1024, rounded)
    assert end - start == 8


def test_the_number_of_tried_runs_is_limited() -> None:
    tried = 0

    def padded(rows: int, longest: int) -> int:
        nonlocal tried
        tried += 1
        return rows * longest

    start, end = best_run([20] * 4096, 2000, 512, 16_384, padded)
    assert end - start > 450
    assert tried < 2000


@given(
    lengths=st.lists(st.integers(1, 128), min_size=1, max_size=64).map(sorted),
    data=st.data(),
    most=st.integers(1, 20),
    budget=st.integers(16, 2048),
)
def test_the_run_has_the_required_row_and_keeps_the_limits(
    lengths: list[int], data: st.DataObject, most: int, budget: int
) -> None:
    wanted = data.draw(st.integers(0, len(lengths) - 1))
    start, end = best_run(lengths, wanted, most, budget, mul)
    assert 0 <= start <= wanted < end <= len(lengths)
    assert end - start <= most
    assert end - start == 1 or (end - start) * lengths[end - 1] <= budget
