"""Run a Ray Train trainer: show its progress, and raise the failure that the user has to fix."""

from __future__ import annotations

import logging
from concurrent.futures import wait
from typing import Any

import ray
from ray.train import TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from finsent.adapters.ray_train import LeanTorchTrainer
from finsent.daemon_call import call_in_daemon
from finsent.training.progress import ProgressBoard, TrainingDisplay

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 5  # for the board's answer
_SHOW_SECONDS = 1
_STOP_SECONDS = 2  # for the controller to notice the end


def start_board() -> Any:
    """Start a `ProgressBoard` as an actor on this node: another node may be lost."""
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote: Any = ray.remote(num_cpus=0)(ProgressBoard).options(scheduling_strategy=this_node)
    return remote.remote()


def run_trainer(trainer: LeanTorchTrainer, board: Any, display: TrainingDisplay) -> None:
    """Run a trainer to its end.

    Args:
        board: from `start_board`.

    Raises:
        UserError: what the board reports.
        TrainingFailedError: a worker failed more often than allowed.
    """
    try:
        if ray.get_runtime_context().get_actor_id() is None:
            _fit_and_show(trainer, board, display)
        else:
            trainer.fit()  # an actor's output has no reader
    except TrainingFailedError:
        if (failure := ray.get(board.failure.remote())) is not None:
            raise failure from None
        raise
    if (failure := ray.get(board.failure.remote())) is not None:
        raise failure


def _fit_and_show(trainer: LeanTorchTrainer, board: Any, display: TrainingDisplay) -> None:
    # In its own thread: the main thread shows the progress and can be interrupted.
    log.info("train: starting the workers")
    future = call_in_daemon("ray-train", trainer.fit)
    with display:
        try:
            while not future.done():
                wait([future], timeout=_SHOW_SECONDS)
                _show(board, display)
            _show(board, display)  # the last epoch
            future.result()
        finally:
            trainer.stop(_STOP_SECONDS)


def _show(board: Any, display: TrainingDisplay) -> None:
    try:
        progress, notes, epochs = ray.get(
            [
                board.read.remote(),
                board.notes.remote(display.note_count),
                board.epochs.remote(display.epoch),
            ],
            timeout=_ANSWER_SECONDS,
        )
    except ray.exceptions.RayError:  # a missing line of progress does not end the run
        return
    display.show(progress, notes, epochs)
