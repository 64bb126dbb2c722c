"""How fast a dataset version feeds a training worker, against how fast one core trains on it."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pyarrow as pa

from finsent.data.dataset import DatasetVersion
from finsent.settings import Settings
from finsent.training.task import Task

log = logging.getLogger(__name__)

TRAINED_ROWS = 192  # an epoch; seconds on one core
FED_ROWS = 30_000


def _collate(pad_id: int) -> Any:
    """What makes of a block's rows the tensors that the loop gets."""
    import numpy as np
    from ray.data.collate_fn import ArrowBatchCollateFn

    from finsent.training.tokens import TokenRows

    class Padded(ArrowBatchCollateFn):
        def __call__(self, batch: pa.Table) -> Any:
            rows = TokenRows.from_table(batch, pad_id)
            return rows.batch(np.arange(len(rows)))

    return Padded()


def feed(version: DatasetVersion, task: Task, rows: int) -> float:
    """Rows/s of `iter_torch_batches` through the tokeniser, in one consumer, on a running Ray.

    From the first batch on, epoch after epoch until `rows` have come: a worker that trains waits
    for Ray's processes to load the tokeniser once, too.
    """
    import ray.data

    from finsent.modeling.classifier import load_tokenizer
    from finsent.training.tokens import Batch, tokenise

    backbone = task.backbone
    dataset = (
        ray.data.read_parquet([str(file) for file in version.files("train")])
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
    pad_id = load_tokenizer(backbone.source, backbone.revision).pad_token_id

    def batches() -> Iterator[Batch]:
        while True:  # an epoch each
            for batch in dataset.iter_torch_batches(
                batch_size=task.config.batch_size, collate_fn=_collate(pad_id)
            ):
                yield cast(Batch, batch)

    endless = batches()
    next(endless)
    started, fed = time.perf_counter(), 0
    while fed < rows:
        fed += len(next(endless).labels)
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
