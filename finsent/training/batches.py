"""The rows of each worker in each step.

Rows are short and uneven, so padding would be most of the work in batches drawn at random. Rows are
shuffled, sorted by length inside windows of several batches, and cut into batches. Then the batches
are shuffled (bucketing by length, as in torchtext's BucketIterator and fairseq). The rows of a
batch are dealt to the ranks in turn: all ranks make the same number of steps, with rows of about
the same length, and none waits at the gradient exchange.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def epoch_batches(
    lengths: Indices,
    batch_size: int,
    bucket_batches: int,
    seed: int,
    epoch: int,
    batch_tokens: int | None = None,
) -> list[Indices]:
    """Return the global batches of an epoch: each row once, the same list on every rank.

    Args:
        lengths: tokens of each row.
        batch_size: rows in a batch over all ranks; one batch of the epoch may be smaller.
        bucket_batches: batches in a window that is sorted by length.
        seed: together with `epoch`, decides the order.
        epoch: counted from 0.
        batch_tokens: rows times longest row of a batch, in place of `batch_size` rows. A longer row
            is its own batch.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths)).astype(np.int64)
    window = batch_size * bucket_batches
    batches: list[Indices] = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        if batch_tokens is None:
            batches.extend(rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
        else:
            batches.extend(_token_budget_batches(lengths, rows, batch_tokens))
    return [batches[i] for i in random.permutation(len(batches))]


def _token_budget_batches(lengths: Indices, rows: Indices, budget: int) -> Iterator[Indices]:
    """Cut rows that are sorted by length, the shortest first, into batches of a token budget."""
    start = 0
    while start < len(rows):
        shortest = max(1, int(lengths[rows[start]]))
        candidates = rows[start : start + max(1, budget // shortest)]  # more cannot fit
        padded = lengths[candidates] * np.arange(1, len(candidates) + 1)
        size = max(1, int(np.searchsorted(padded, budget, side="right")))
        yield rows[start : start + size]
        start += size


def count_steps(
    lengths: Indices,
    batch_size: int,
    bucket_batches: int,
    seed: int,
    epochs: int,
    batch_tokens: int | None = None,
) -> list[int]:
    """Return the number of batches of each epoch; arguments as of `epoch_batches`."""
    if batch_tokens is None:
        return [-(-len(lengths) // batch_size)] * epochs
    return [
        len(epoch_batches(lengths, batch_size, bucket_batches, seed, epoch, batch_tokens))
        for epoch in range(epochs)
    ]


def rank_rows(batch: Indices, rank: int, world_size: int) -> Indices:
    """Return a rank's rows of a global batch; none where the batch has fewer rows than ranks."""
    return batch[rank::world_size]


def sorted_batches(lengths: Indices, rank: int, world_size: int, batch_size: int) -> list[Indices]:
    """Return a rank's batches for evaluation, the longest rows first; each row is on one rank."""
    rows = np.argsort(-lengths, kind="stable").astype(np.int64)[rank::world_size]
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
