"""The shapes that micro-batches are padded to, without the library that computes them.

A gateway chooses the rows of a micro-batch by these shapes, and a classifier computes the rows in
another process (`serve_app.split`).
"""

from __future__ import annotations

ROWS = (1, 2, 4, 8, 16)
# OpenVINO compiles each new pair of rows and length, and keeps 4 MB; all pairs of these lists keep
# 120 MB (MiniLM, two streams).
LENGTHS = (8, 16, 24, 32, 40, 48, 64)
# Longer texts are rare. They have fewer shapes, so that memory does not grow as the service runs.
LONG_STEP = 64
LONG_ROWS = (1, 4, 8)


def unchanged(rows: int, length: int) -> tuple[int, int]:
    """Return the shape unchanged."""
    return rows, length


def rounded(rows: int, length: int) -> tuple[int, int]:
    """Return the smallest shape of the lists above that holds the micro-batch."""
    is_long = length > LENGTHS[-1]
    sizes = LONG_ROWS if is_long else ROWS
    padded_rows = next((size for size in sizes if size >= rows), rows)
    if is_long:
        return padded_rows, -(-length // LONG_STEP) * LONG_STEP
    return padded_rows, next(size for size in LENGTHS if size >= length)
