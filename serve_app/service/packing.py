"""The choice of rows for the next micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

# Cost of a micro-batch without its rows (MiniLM in OpenVINO: 1.1 ms of 2.4 ms for one row of 28
# tokens).
_OVERHEAD_TOKENS = 24
# First and last rows to try: trying all of 256 rows would take longer than the model.
_MAX_TRIES = 32


def best_run(
    lengths: Sequence[int],
    required: int,
    max_rows: int,
    budget: int,
    padded: Callable[[int, int], int],
) -> tuple[int, int]:
    """Return the run of rows, sorted by length, with the most tokens per cost.

    Args:
        lengths: tokens of each row, ascending.
        required: index of the row that the run must contain.
        max_rows: of the run.
        budget: limit of rows x longest row; a single row may exceed it.
        padded: returns the tokens that the model computes for a number of rows and the length of
            the longest row.

    Returns:
        Index of the first row, and the index after the last.
    """
    sums = [0, *accumulate(lengths)]
    best, best_score = (required, required + 1), -1.0
    for end in _spread(required + 1, min(len(lengths), required + max_rows)):
        longest = lengths[end - 1]
        for start in _spread(max(0, end - max_rows), required):
            rows = end - start
            if rows > 1 and rows * longest > budget:
                continue
            score = (sums[end] - sums[start]) / (padded(rows, longest) + _OVERHEAD_TOKENS)
            if score > best_score:
                best, best_score = (start, end), score
    return best


def _spread(first: int, last: int) -> list[int]:
    """Return the first and the last index, and evenly spaced ones between them."""
    step = -(-(last - first + 1) // _MAX_TRIES)
    return [*range(first, last, step), last]
