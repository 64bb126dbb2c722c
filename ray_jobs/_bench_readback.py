"""How fast a dataset version feeds a training worker, against how fast one core trains on it."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pyarrow as pa

from finsent.data.dataset import DatasetVersion
from finsent.settings import Settings
from finsent.training.task import Task

log = logging.getLogger(__name__)

TRAINED_ROWS = 192  # an epoch; seconds on one core
FED_ROWS = 100_000


def _padded(batch: pa.Table, pad_id: int) -> Any:
    """What the loop gets: tensors of token ids, mask and labels."""
    import numpy as np

    from finsent.training.tokens import TokenRows

    rows = TokenRows.from_table(batch.combine_chunks(), pad_id)
    return rows.batch(np.arange(len(rows)))


def feed(version: DatasetVersion, task: Task, rows: int) -> float:
    """Rows/s of `iter_torch_batches` through the tokeniser, in one consumer, on a running Ray."""
    import ray.data

    from finsent.training.tokens import Batch, tokenise

    files = [str(file) for file in version.files("train")]
    repeats = max(1, -(-rows // version.rows("train")))  # small sets are read again and again
    backbone = task.backbone
    dataset = (
        ray.data.read_parquet(files * repeats)
        .select_columns(["key", "text", "label"])
        .map_batches(
            tokenise,  # type: ignore[arg-type] # keyword arguments are missing in Ray's types
            batch_format="pyarrow",
            fn_kwargs={
                "source": backbone.source,
                "revision": backbone.revision,
                "max_length": task.max_length,
            },
        )
    )
    batches = dataset.iter_torch_batches(
        batch_size=task.config.batch_size, collate_fn=partial(_padded, pad_id=0)
    )
    started, fed = time.perf_counter(), 0
    for batch in batches:
        fed += len(cast(Batch, batch).labels)
    return fed / (time.perf_counter() - started)


def bench_readback(
    settings: Settings,
    task: Task,
    version: DatasetVersion,
    train_one_core: Callable[[], float],
    session: Callable[[], Any],
) -> dict[str, Any]:
    """Feed and train in turn; medians of the rounds.

    Args:
        train_one_core: rows/s of training with one worker of one thread.
        session: a running Ray, as a context manager.
    """
    fed, trained = [], []
    for number in range(settings.bench.rounds):
        with session():
            fed.append(feed(version, task, settings.bench.rows or FED_ROWS))
        trained.append(train_one_core())
        log.info(
            "round %d of %d: fed %.0f rows/s, trained %.1f rows/s",
            number + 1, settings.bench.rounds, fed[-1], trained[-1],
        )  # fmt: skip
    rates = statistics.median(fed), statistics.median(trained)
    return {
        "readback_over_training": rates[0] / rates[1],
        "readback_rows_per_second": rates[0],
        "training_rows_per_second": rates[1],
        "backbone": task.backbone.name,
        "batch_size": task.config.batch_size,
        "rounds": {"fed": fed, "trained": trained},
    }
