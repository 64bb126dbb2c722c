"""Which rows each worker sees in each step.

Rows are short and uneven, so padding is most of the work when batches are drawn at random. Rows are
shuffled, sorted by length inside windows of some batches, cut into batches, and the batches are
shuffled again (bucketing by length, as in torchtext's BucketIterator and fairseq). A batch is dealt
to the ranks row by row, so every rank takes as many steps as the others, with rows about as long,
and none waits at the gradient exchange.
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
    """The global batches of an epoch: each row once, the same list on every rank.

    Args:
        lengths: tokens of each row.
        batch_size: rows in a batch over all ranks; one batch of the epoch may be smaller.
        bucket_batches: batches in a window that is sorted by length.
        seed: together with `epoch`, decides the order.
        epoch: counted from 0.
        batch_tokens: rows times longest row of a batch, in place of `batch_size` rows; a longer row
            is a batch by itself.
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
            batches.extend(_within(lengths, rows, batch_tokens))
    return [batches[i] for i in random.permutation(len(batches))]


def _within(lengths: Indices, rows: Indices, budget: int) -> Iterator[Indices]:
    """Cut rows that are sorted by length, the shortest first, into batches of a token budget."""
    start = 0
    while start < len(rows):
        first = max(1, int(lengths[rows[start]]))
        ahead = rows[start : start + max(1, budget // first)]  # more cannot fit
        padded = lengths[ahead] * np.arange(1, len(ahead) + 1)
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
    """The number of batches of each epoch; arguments as of `epoch_batches`."""
    if batch_tokens is None:
        return [-(-len(lengths) // batch_size)] * epochs
    return [
        len(epoch_batches(lengths, batch_size, bucket_batches, seed, epoch, batch_tokens))
        for epoch in range(epochs)
    ]


def share(batch: Indices, rank: int, world_size: int) -> Indices:
    """A rank's rows of a global batch; none when the batch has fewer rows than there are ranks."""
    return batch[rank::world_size]


def sorted_batches(lengths: Indices, rank: int, world_size: int, batch_size: int) -> list[Indices]:
    """A rank's rows for evaluation, longest first: each row of the split on exactly one rank."""
    rows = np.argsort(-lengths, kind="stable").astype(np.int64)[rank::world_size]
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
