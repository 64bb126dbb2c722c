"""Private and fragile APIs of Ray Train (V2).

`tests/unit/test_adapter_ray_train.py` fails with a clear message where an upgrade of Ray removes
one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train import UserCallback
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

# At run time the public modules export the classes of V2; for type checkers, those of V1.
if TYPE_CHECKING:
    from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.torch.torch_trainer import TorchTrainer
else:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

__all__ = [
    "CheckpointConfig",
    "FailureConfig",
    "LeanTorchTrainer",
    "RaiseFailure",
    "RunConfig",
    "ScalingConfig",
    "TorchTrainer",
    "remove_records",
    "set_start_timeout",
]

# Ray Train's own record of a run's checkpoints, in the run's directory.
MANAGER_SNAPSHOT = "checkpoint_manager_snapshot.json"
# Ray Train's controller reads this variable when it starts; no argument sets the timeout.
START_TIMEOUT_VARIABLE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
# Ray Train updates its view of the cluster's nodes this often. After a node is lost, the controller
# may first ask for as many workers as before, and must not wait for them much longer than this.
NODE_UPDATE_SECONDS = 20
# Callbacks that start a process per run.
# `PlacementGroupCleanerCallback` removes the placement group of a dead controller. Ray does so at
# the end of the job, and code that kills runs within a job does so itself. On a cluster without a
# dashboard the process would never exit.
# `DatasetsCallback` splits datasets among workers. Here every worker reads all rows.
UNUSED_CALLBACKS = (PlacementGroupCleanerCallback, DatasetsCallback)


class LeanTorchTrainer(TorchTrainer):
    """A `TorchTrainer` that starts no process which this project does not use."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, UNUSED_CALLBACKS)]


class RaiseFailure(UserCallback):
    """Ends a run after a worker's exception, where another start of the workers would not help.

    Ray Train documents no way to do so. An exception of a callback ends its controller.

    Args:
        find_failure: runs in the controller; returns the error to raise, or None to start again.
    """

    def __init__(self, find_failure: Callable[[], Exception | None]) -> None:
        self._find_failure = find_failure

    def after_exception(self, *_: Any, **__: Any) -> None:
        """Raise the failure, if there is one.

        Raises:
            Exception: what `find_failure` returns.
        """
        failure = self._find_failure()
        if failure is not None:
            raise failure


def set_start_timeout(seconds: int, *, is_elastic: bool) -> None:
    """Set how long the next run waits for the resources of its workers.

    An elastic run waits at most until Ray Train has seen that a node is lost.
    """
    timeout = min(seconds, NODE_UPDATE_SECONDS) if is_elastic else seconds
    os.environ[START_TIMEOUT_VARIABLE] = str(timeout)


def remove_records(run_dir: Path) -> None:
    """Remove Ray Train's record of a run's checkpoints.

    Ray Train does not write the record atomically, and refuses to start with a torn one.
    """
    (run_dir / MANAGER_SNAPSHOT).unlink(missing_ok=True)
