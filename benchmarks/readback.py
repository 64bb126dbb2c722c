"""How fast a dataset version feeds a training worker, against how fast one core trains on it."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa

from benchmarks.settings import BenchSettings, benchmark
from benchmarks.train import EPOCHS, prepare, token_splits, under_torchrun
from finsent.data.versions.dataset import DatasetVersion
from finsent.ray_session import ray_session
from finsent.training.task import Task
from ray_jobs._cli import Result, main

log = logging.getLogger(__name__)

TRAINED_ROWS = 192  # an epoch; seconds on one core
FED_ROWS = 30_000


def _collate(pad_id: int) -> Any:
    """What makes of a block's rows the tensors that the loop gets."""
    import numpy as np
    from ray.data.collate_fn import ArrowBatchCollateFn

    from finsent.training.tokens import TokenizedRows

    class Padded(ArrowBatchCollateFn):
        def __call__(self, batch: pa.Table) -> Any:
            rows = TokenizedRows.from_table(batch, pad_id)
            return rows.batch(np.arange(len(rows)))

    return Padded()


def feed(version: DatasetVersion, task: Task, rows: int) -> float:
    """Rows/s of `iter_torch_batches` through the tokenizer, in one consumer, on a running Ray.

    From the first batch on, epoch after epoch until `rows` have come: a worker that trains waits
    for Ray's processes to load the tokenizer once, too.
    """
    import ray.data

    from finsent.modeling.classifier import load_tokenizer
    from finsent.training.tokens import Batch, tokenize

    backbone = task.backbone
    dataset = (
        ray.data.read_parquet([str(file) for file in version.files("train")])
        .select_columns(["key", "text", "label"])
        .map_batches(
            tokenize,  # type: ignore[arg-type] # keyword arguments are missing in Ray's types
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


def bench_readback(settings: BenchSettings) -> Result:
    """Feed and train in turn; medians of the rounds."""
    version, task = prepare(settings, EPOCHS)
    one_core = replace(task, config=task.config.replaced(num_workers=1, cpus_per_worker=1))
    splits = token_splits(version, one_core, TRAINED_ROWS)
    fed, trained = [], []
    for number in range(settings.bench.rounds):
        with ray_session(settings):
            fed.append(feed(version, task, settings.bench.rows or FED_ROWS))
        trained.append(under_torchrun(one_core, splits)["step_rows_per_second"])
        log.info(
            "round %d of %d: fed %.0f rows/s, trained %.1f rows/s",
            number + 1,
            settings.bench.rounds,
            fed[-1],
            trained[-1],
        )
    rates = statistics.median(fed), statistics.median(trained)
    return {
        "readback_over_training": rates[0] / rates[1],
        "readback_rows_per_second": rates[0],
        "training_rows_per_second": rates[1],
        "backbone": task.backbone.name,
        "batch_size": task.config.batch_size,
        "rounds": {"fed": fed, "trained": trained},
    }


JOB = benchmark(
    "readback",
    bench_readback,
    summary="rows/s of a dataset version through the tokenizer into torch batches, against "
    "training on one core.",
    result="readback_over_training, readback_rows_per_second, training_rows_per_second",
    sections=("train", "model", "data", "ray"),
)

if __name__ == "__main__":
    main(JOB)
