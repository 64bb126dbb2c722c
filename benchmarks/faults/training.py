"""Faults under a training with two workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.log_lines import last_lines
from benchmarks.faults.nodes import NamespacedCluster, namespaced_cluster
from benchmarks.faults.record import FaultRecord
from benchmarks.faults.subject import Subject
from finsent.errors import InputError
from finsent.files import sha256_file
from finsent.modeling.model_dir import WEIGHTS
from finsent.runs import MODEL_DIR
from finsent.training.metrics_log import read_epochs, read_steps
from finsent.workspace import Workspace

EPOCHS = 4
TRAIN_SECONDS = 150.0
POLL_SECONDS = 0.05
_WORKER_TITLE = "RayTrainWorker"


@dataclass(frozen=True)
class TrainedRun:
    """A training that has ended."""

    run_dir: Path
    exit_code: int | None  # null: the training did not end in time
    log: Path

    @property
    def steps(self) -> list[int]:
        """Numbers of the logged steps."""
        return [line.step for line in read_steps(self.run_dir)]

    @property
    def rows(self) -> list[int]:
        """Rows that each epoch computed."""
        return [line.train_rows for line in read_epochs(self.run_dir)]

    @property
    def weights(self) -> str | None:
        """Digest of the final weights; None: the training wrote no model."""
        file = self.run_dir / MODEL_DIR / WEIGHTS
        return sha256_file(file) if file.is_file() else None


def arguments(subject: Subject, run_name: str) -> list[str]:
    """Return the settings of the training."""
    return [
        f"storage.root={subject.root}",
        f"data.name={subject.dataset}",
        f"run.name={run_name}",
        "model.backbone=tiny",
        "train.num_workers=2",
        f"train.epochs={EPOCHS}",
        "train.batch_size=8",
        "train.checkpoint_every_steps=10",
        "train.log_every_steps=1",
    ]


def train(
    cluster: NamespacedCluster,
    subject: Subject,
    log: Path,
    watch: Callable[[Path], None],
) -> TrainedRun:
    """Train on the cluster's head, and wait for the end.

    Args:
        cluster: has two CPUs for the workers.
        subject: has the dataset.
        log: gets stderr; its stem is the name of the run.
        watch: called all the time with the run's directory.
    """
    run_dir = Workspace.at(subject.root).runs_dir / log.stem
    job = cluster.start_job("train", arguments(subject, log.stem), log)
    deadline = time.monotonic() + TRAIN_SECONDS
    try:
        while job.poll() is None and time.monotonic() < deadline:
            watch(run_dir)
            time.sleep(POLL_SECONDS)
        return TrainedRun(run_dir, job.poll(), log)
    finally:
        job.kill()
        job.wait()


def _let_run(_: Path) -> None:
    """Disturb nothing."""


class InsideEpoch:
    """Kills a worker node with a worker of the training inside an epoch, and times the recovery."""

    def __init__(self, cluster: NamespacedCluster, steps_per_epoch: int) -> None:
        """Plan the fault for the middle of the second epoch."""
        self.recovery_seconds: float | None = None
        self.killed_step: int | None = None
        self._cluster, self._steps_per_epoch = cluster, steps_per_epoch
        self._killed_at = 0.0

    def watch(self, run_dir: Path) -> None:
        """Kill the node at the planned step; later, note the first step after that."""
        step = max((line.step for line in read_steps(run_dir)), default=0)
        if self.killed_step is None:
            if step > self._steps_per_epoch * 1.4:
                self._kill(run_dir)
        elif self.recovery_seconds is None and step > self.killed_step:
            self.recovery_seconds = round(time.monotonic() - self._killed_at, 1)

    def _kill(self, run_dir: Path) -> None:
        node = next((node for node in self._cluster.workers if node.actors(_WORKER_TITLE)), None)
        if node is None:
            raise InputError("benchmarks.faults: no worker node has a worker of the training.")
        node.kill()
        self._killed_at = time.monotonic()
        self.killed_step = max(line.step for line in read_steps(run_dir))
        if self.killed_step % self._steps_per_epoch == 0:
            raise InputError("benchmarks.faults: the fault came between two epochs. Run again.")


def worker_killed_inside_epoch(subject: Subject, work: Path) -> FaultRecord:
    """Kill a worker node with a worker of the training in the middle of the second epoch."""
    with namespaced_cluster(1, (2, 2)) as cluster:
        undisturbed = train(cluster, subject, work / f"{work.name}-undisturbed.log", _let_run)
        if undisturbed.exit_code:
            raise InputError(f"benchmarks.faults: {' '.join(last_lines(undisturbed.log))}")
        fault = InsideEpoch(cluster, max(undisturbed.steps) // EPOCHS)
        log = work / f"{work.name}-faulty.log"
        faulty = train(cluster, subject, log, fault.watch)
    if fault.killed_step is None:
        raise InputError("benchmarks.faults: the training ended before the fault.")
    return FaultRecord(
        name="train_worker_sigkill_inside_epoch",
        recovery_seconds=fault.recovery_seconds,
        exit_code=faulty.exit_code,
        # Without this machine's path.
        last_lines=tuple(line.replace(str(subject.root), "ROOT") for line in last_lines(log)),
        epoch_rows_equal=faulty.rows == undisturbed.rows and faulty.steps == undisturbed.steps,
        weights_equal=faulty.weights is not None and faulty.weights == undisturbed.weights,
    )
