"""Private and fragile APIs of Ray Train (V2).

`tests/unit/test_adapter_ray_train.py` fails with a clear message where an upgrade of Ray removes
one of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray._private.log import PlainRayHandler
from ray.train import UserCallback
from ray.train.v2._internal import exceptions as train_exceptions
from ray.train.v2._internal import util as train_util
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.checkpoint import sync_actor
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup

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
_SYNCHRONIZATION_CLASS = "SynchronizationActor"
# Modules of Ray Train whose code this class uses.
SYNCHRONIZATION_MODULES = (sync_actor, train_exceptions, train_util)


class LeanTorchTrainer(TorchTrainer):
    """A `TorchTrainer` that starts no process which this project does not use.

    The driver of a job runs the controller in the thread that calls `fit`. Ray Train would start an
    actor for it: 4 CPU seconds, before which no worker starts. An actor that calls `fit`, such as
    a trial of a sweep, has a controller of its own, which can be killed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop: Callable[[], object] | None = None
        self._has_ended = threading.Event()

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, UNUSED_CALLBACKS)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        if ray.get_runtime_context().get_actor_id() is not None:
            return super()._initialize_and_run_controller(**arguments)
        try:
            return asyncio.run(self._control(arguments))
        finally:
            self._has_ended.set()

    async def _control(self, arguments: dict[str, Any]) -> Any:
        policy = arguments["scaling_policy"]
        if _is_own_ray() and isinstance(policy, FixedScalingPolicy):
            arguments["scaling_policy"] = _UnregisteredScalingPolicy(policy.scaling_config)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._stop = lambda: loop.call_soon_threadsafe(task.cancel)
        controller = _DriverController(**arguments)
        # Ray Train has just configured this logger. What the user has to know, the caller reports.
        logger = logging.getLogger("ray.train")
        for handler in logger.handlers[:]:
            if isinstance(handler, PlainRayHandler):
                logger.removeHandler(handler)
        await controller.run()  # type: ignore[no-untyped-call]
        return controller.get_result()

    def stop(self, timeout: float) -> None:
        """End `fit`, which runs in another thread, before Ray is shut down.

        Args:
            timeout: in seconds. A `fit` that waits for workers to start ends with Ray.
        """
        if self._stop is not None and not self._has_ended.is_set():
            with suppress(RuntimeError):  # it has just ended, and its event loop is closed
                self._stop()
            self._has_ended.wait(timeout)


class _LeanSynchronizationActor:
    """Ray Train's `SynchronizationActor`, in a process that does not import Ray Train.

    The actor is a barrier for the workers, and uses only asyncio. Ray would send its code with the
    names of Ray Train's modules, whose import takes 1.7 CPU seconds, with pandas and Ray Data.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @classmethod
    def options(cls, **options: Any) -> _LeanSynchronizationActor:
        """Return the actor's class with options of an actor."""
        return cls(options)

    def remote(self, **arguments: Any) -> Any:
        """Start the actor, and return its handle."""
        actor_class: Any = sync_actor.SynchronizationActor
        with pickled_by_value(*SYNCHRONIZATION_MODULES):
            return actor_class.options(**self._options).remote(**arguments)


@contextmanager
def pickled_by_value(*modules: ModuleType) -> Iterator[None]:
    """Let Ray send code of modules instead of their names inside the block."""
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


class _DriverWorkerGroup(WorkerGroup):
    """Workers whose controller is not an actor.

    Only `get_all_reported_checkpoints` would call the controller.
    """

    def _start_impl(self, *args: Any, **kwargs: Any) -> None:
        actor_class = getattr(worker_group, _SYNCHRONIZATION_CLASS)
        setattr(worker_group, _SYNCHRONIZATION_CLASS, _LeanSynchronizationActor)
        try:
            super()._start_impl(*args, **kwargs)
        finally:
            setattr(worker_group, _SYNCHRONIZATION_CLASS, actor_class)

    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[index] for name, values in train_context_args.items()},
                )
                for index, worker in enumerate(workers)
            ]
        )
        self._decorate_worker_log_file_paths(workers)


class _UnregisteredScalingPolicy(FixedScalingPolicy):
    """Starts a fixed number of workers, and does not register them with Ray Data.

    The registry is an actor, for Ray Data to leave CPUs to the workers. No dataset is read here.
    """

    def _maybe_send_resource_request(self) -> None:
        pass

    def _send_resource_request(self) -> None:
        pass

    def _cancel_resource_request(self) -> None:
        pass


def _is_own_ray() -> bool:
    """Return whether this process has started the Ray that it uses."""
    node = ray._private.worker._global_node
    return node is not None and node.is_head()


class _DriverController(TrainController):
    """Ray Train's controller in the driver, where `LeanTorchTrainer.stop` can cancel it."""

    worker_group_cls = _DriverWorkerGroup

    async def _run_control_loop_iteration(self) -> None:
        await asyncio.sleep(0)  # where a cancellation is noticed
        await super()._run_control_loop_iteration()  # type: ignore[no-untyped-call]


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
