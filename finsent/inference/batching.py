"""Micro-batches: rows of about one length, within a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def micro_batches(
    lengths: npt.NDArray[np.int64], token_budget: int, most_rows: int | None = None
) -> list[Ids]:
    """Group rows by length so that rows x longest row stays within the budget.

    A row longer than the budget goes alone.

    Args:
        lengths: tokens by row, shape (rows,).
        most_rows: of one micro-batch; None: any number.

    Returns:
        Row numbers by micro-batch, short rows first.
    """
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    batches, start = [], 0
    for end in range(1, len(order) + 1):
        full = end < len(order) and (
            (end + 1 - start) * lengths[order[end]] > token_budget or end - start == most_rows
        )
        if full or end == len(order):
            batches.append(order[start:end])
            start = end
    return batches


def padded(rows: Sequence[Sequence[int]], shape: tuple[int, int], pad_id: int) -> tuple[Ids, Ids]:
    """Ids and attention mask of a shape that holds the rows.

    Rows beyond them read one padding token, so that no row is without anything to attend to.
    """
    ids = np.full(shape, pad_id, np.int64)
    mask = np.zeros(shape, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    mask[len(rows) :, 0] = 1
    return ids, mask
