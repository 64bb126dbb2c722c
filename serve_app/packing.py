"""Which of the waiting rows make the next micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

# What a micro-batch costs by itself, in padded tokens (MiniLM in OpenVINO: 1.1 ms of 2.4 ms for one
# row of 28 tokens).
_OVERHEAD = 24
# So many ends and beginnings are tried at most: all of 256 rows' would take longer than the model.
_TRIES = 32


def best_run(
    lengths: Sequence[int],
    wanted: int,
    most: int,
    budget: int,
    padded: Callable[[int, int], int],
) -> tuple[int, int]:
    """The neighbours in length, one of them given, that bring most tokens for what they cost.

    Args:
        lengths: tokens of each row, ascending.
        wanted: the row that must be among them.
        most: rows.
        budget: rows x longest row, unless it is one row.
        padded: tokens that the model computes for so many rows with so long a longest one.

    Returns:
        First row, and the one behind the last.
    """
    sums = [0, *accumulate(lengths)]
    best, best_score = (wanted, wanted + 1), -1.0
    for end in _spread(wanted + 1, min(len(lengths), wanted + most)):
        longest = lengths[end - 1]
        for start in _spread(max(0, end - most), wanted):
            rows = end - start
            if rows > 1 and rows * longest > budget:
                continue
            score = (sums[end] - sums[start]) / (padded(rows, longest) + _OVERHEAD)
            if score > best_score:
                best, best_score = (start, end), score
    return best


def _spread(first: int, last: int) -> list[int]:
    """First, last, and evenly many between them."""
    step = -(-(last - first + 1) // _TRIES)
    return [*range(first, last, step), last]
