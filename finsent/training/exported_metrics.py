"""Metrics of a training in Prometheus, from its workers and its driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from finsent import metric_list
from finsent.errors import DivergenceError
from finsent.job_metrics import JobMetrics
from finsent.training.metrics import EpochMetrics
from finsent.training.progress import Progress

_TRIALS_DIR = "trials"  # of a sweep, whose trials train in TRIALS_DIR/NUMBER


class TrainingMetrics:
    """Exports what one worker knows: rank 0 the run's progress, each rank its GPU's memory.

    Args:
        run_dir: of the training.
        workers: number of workers.
    """

    def __init__(self, run_dir: Path, rank: int, workers: int) -> None:
        self._rank, self._workers = rank, workers
        self._metrics = JobMetrics(run=run_label(run_dir))
        self._exported_rows: int | None = None  # None: no progress yet

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep the gauges during the block."""
        with self._metrics:
            if self._rank == 0:
                self._metrics.set(metric_list.TRAIN_WORKERS, self._workers)
            yield

    def show(self, progress: Progress) -> None:
        """Export the position of the run."""
        metrics = self._metrics
        if self._exported_rows is not None:  # rows before a resumption are not counted again
            metrics.add(metric_list.TRAIN_ROWS, progress.rows - self._exported_rows)
        self._exported_rows = progress.rows
        metrics.set(metric_list.TRAIN_STEP, progress.step)
        metrics.set(metric_list.TRAIN_PROGRESS, progress.step / max(progress.total_steps, 1))
        metrics.set(metric_list.TRAIN_LOSS, progress.loss)
        metrics.set(metric_list.TRAIN_PADDING, progress.padding_share)

    def show_epoch(self, epoch: EpochMetrics) -> None:
        """Export the validation of an epoch."""
        self._metrics.set(metric_list.TRAIN_VALIDATION_LOSS, epoch.validation_loss)
        self._metrics.set(metric_list.TRAIN_MACRO_F1, epoch.macro_f1)

    def show_gpu(self) -> None:
        """Export the memory of this worker's tensors, without waiting for the GPU."""
        if torch.cuda.is_initialized():
            self._metrics.set(
                metric_list.TRAIN_GPU_BYTES, torch.cuda.memory_allocated(), rank=str(self._rank)
            )


@contextmanager
def counted_divergence(run_dir: Path) -> Iterator[None]:
    """Count a divergence that ends the block, in the driver.

    Ray kills the workers at the end of a training, before they send their last values.
    """
    try:
        yield
    except DivergenceError:
        JobMetrics(run=run_label(run_dir)).add(metric_list.TRAIN_DIVERGENCES, 1)
        raise


def run_label(run_dir: Path) -> str:
    """Return the name of a run; of a sweep's trial, the sweep's name and the trial's number."""
    if run_dir.parent.name == _TRIALS_DIR:
        return f"{run_dir.parent.parent.name}/{run_dir.name}"
    return run_dir.name
