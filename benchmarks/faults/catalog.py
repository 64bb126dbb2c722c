"""The faults that `python -m benchmarks.faults` plants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import serving, training
from benchmarks.faults.load import RATE
from benchmarks.faults.record import FaultRecord
from benchmarks.faults.subject import Subject


@dataclass(frozen=True)
class Fault:
    """A fault under a job."""

    name: str  # of its record
    job: str
    title: str  # in the table
    setup: str  # what runs, and what happens, in full sentences
    plant: Callable[[Subject, Path], FaultRecord]  # the path: of a directory for logs


FAULTS = (
    Fault(
        "serve_worker_sigkill",
        "serve",
        "SIGKILL of a worker node",
        "The service has a replica and a proxy on each of the three nodes. Clients send "
        f"{RATE:.0f} requests/s at fixed times to a load balancer, which checks "
        "`/-/healthz` of each node twice per second and sends a request to another node when a "
        "node does not answer. All processes of a worker node die at once. The service has "
        "recovered when Ray reports three running replicas on the two other nodes.",
        serving.worker_killed,
    ),
    Fault(
        "train_worker_sigkill_inside_epoch",
        "train",
        "SIGKILL of a worker node inside an epoch",
        f"Two workers train {training.EPOCHS} epochs with `train.checkpoint_every_steps=10`. All "
        "processes of a node with at least one of the workers die in the middle of the second "
        "epoch. The training has recovered at its first new step.",
        training.worker_killed_inside_epoch,
    ),
)
