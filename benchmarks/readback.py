"""Rows/s at which a dataset version feeds a training worker, compared with training on one core."""

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

TRAINED_ROWS = 192  # rows of an epoch, which takes seconds on one core
FED_ROWS = 30_000


def _collate(pad_id: int) -> Any:
    """Return the function that makes the tensors of the training loop from rows of a block."""
    import numpy as np
    from ray.data.collate_fn import ArrowBatchCollateFn

    from finsent.training.tokens import TokenizedRows

    class PaddingCollator(ArrowBatchCollateFn):
        def __call__(self, batch: pa.Table) -> Any:
            rows = TokenizedRows.from_table(batch, pad_id)
            return rows.batch(np.arange(len(rows)))

    return PaddingCollator()


def feed(version: DatasetVersion, task: Task, rows: int) -> float:
    """Return the rows/s of tokenized batches in one consumer, on a running Ray.

    The clock starts at the first batch, because a training also waits only once for Ray's processes
    to load the tokenizer. Epochs follow each other until `rows` rows have arrived.
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
        while True:
            for batch in dataset.iter_torch_batches(
                batch_size=task.config.batch_size, collate_fn=_collate(pad_id)
            ):
                yield cast(Batch, batch)

    stream = batches()
    next(stream)
    start, fed_rows = time.perf_counter(), 0
    while fed_rows < rows:
        fed_rows += len(next(stream).labels)
    return fed_rows / (time.perf_counter() - start)


def bench_readback(settings: BenchSettings) -> Result:
    """Feed and train in turn, and compare medians of the rounds."""
    version, task = prepare(settings, EPOCHS)
    one_core = replace(task, config=task.config.replaced(num_workers=1, cpus_per_worker=1))
    splits = token_splits(version, one_core, TRAINED_ROWS)
    fed_rates, trained_rates = [], []
    for number in range(settings.bench.rounds):
        with ray_session(settings):
            fed_rates.append(feed(version, task, settings.bench.rows or FED_ROWS))
        trained_rates.append(under_torchrun(one_core, splits)["step_rows_per_second"])
        log.info(
            "round %d of %d: fed %.0f rows/s, trained %.1f rows/s",
            number + 1,
            settings.bench.rounds,
            fed_rates[-1],
            trained_rates[-1],
        )
    fed_rate, trained_rate = statistics.median(fed_rates), statistics.median(trained_rates)
    return {
        "readback_over_training": fed_rate / trained_rate,
        "readback_rows_per_second": fed_rate,
        "training_rows_per_second": trained_rate,
        "backbone": task.backbone.name,
        "batch_size": task.config.batch_size,
        "rounds": {"fed": fed_rates, "trained": trained_rates},
    }


JOB = benchmark(
    "readback",
    bench_readback,
    summary="Measure how fast a dataset version becomes tokenized torch batches, compared with "
    "training on one core.",
    result="readback_over_training, readback_rows_per_second, training_rows_per_second",
    sections=("train", "model", "data", "ray"),
)

if __name__ == "__main__":
    main(JOB)
