"""Group rows of similar length into micro-batches within a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Row: TypeAlias = Sequence[int] | npt.NDArray[np.int32]  # token ids of a text


def micro_batches(
    lengths: npt.NDArray[np.int64], token_budget: int, max_rows: int | None = None
) -> list[Ids]:
    """Group rows by length so that rows x longest row stays within the budget.

    A row longer than the budget is a micro-batch of its own.

    Args:
        lengths: tokens per row, shape (rows,).
        token_budget: largest rows x longest row of a micro-batch.
        max_rows: per micro-batch; None: no limit.

    Returns:
        Row numbers per micro-batch, short rows first.
    """
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    batches, start = [], 0
    for end in range(1, len(order) + 1):
        is_full = end < len(order) and (
            (end + 1 - start) * lengths[order[end]] > token_budget or end - start == max_rows
        )
        if is_full or end == len(order):
            batches.append(order[start:end])
            start = end
    return batches


def padded(rows: Sequence[Row], shape: tuple[int, int], pad_id: int) -> tuple[Ids, Ids]:
    """Return ids and attention mask of the rows, padded to a shape.

    Added rows attend to one padding token: a softmax over no token would not be a number.
    """
    ids = np.full(shape, pad_id, np.int64)
    mask = np.zeros(shape, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    mask[len(rows) :, 0] = 1
    return ids, mask
