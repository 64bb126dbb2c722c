"""The private and fragile APIs of Ray Train that `finsent.adapters.ray_train` uses are there."""

from __future__ import annotations

import inspect
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle
from ray.train.v2._internal import constants
from ray.train.v2._internal.callbacks.user_callback import UserCallbackHandler
from ray.train.v2._internal.execution.checkpoint import sync_actor
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import (
    AUTOSCALING_REQUESTS_INTERVAL_S,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from finsent.adapters import ray_train
from finsent.errors import InputError

CHANGED = "Ray has changed; adapt finsent/adapters/ray_train.py: "


def test_names_that_ray_train_reads_and_writes() -> None:
    variable = constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR
    assert variable == ray_train.START_TIMEOUT_VARIABLE, CHANGED + "START_TIMEOUT_VARIABLE"
    snapshot = constants.CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
    assert snapshot == ray_train.MANAGER_SNAPSHOT, CHANGED + "MANAGER_SNAPSHOT"


def test_how_often_ray_train_looks_at_the_nodes() -> None:
    seconds = AUTOSCALING_REQUESTS_INTERVAL_S
    assert seconds == ray_train.NODE_UPDATE_SECONDS, CHANGED + "NODE_UPDATE_SECONDS"


def test_the_trainer_creates_the_callbacks_that_are_left_out() -> None:
    assert issubclass(ray_train.TorchTrainer, DataParallelTrainer), CHANGED + "TorchTrainer is V1's"
    create = getattr(DataParallelTrainer, "_create_default_callbacks", None)
    assert create is not None, CHANGED + "LeanTorchTrainer"
    source = inspect.getsource(create)
    for callback in ray_train.UNUSED_CALLBACKS:
        assert f"{callback.__name__}(" in source, CHANGED + f"{callback.__name__} is not created"
    assert "_create_default_callbacks" in vars(ray_train.LeanTorchTrainer)


def test_scaling_is_elastic() -> None:
    config = ray_train.ScalingConfig(num_workers=(1, 4), elastic_resize_monitor_interval_s=1)
    assert config.num_workers == (1, 4), CHANGED + "ScalingConfig"


def test_an_error_of_a_callback_is_not_caught() -> None:
    """So that `RaiseFailure` ends the run; that it does: `integration/test_train.py`."""
    failure = InputError("train.max_loss=1: the loss is 2")
    callback = ray_train.RaiseFailure(lambda: failure)
    handler = inspect.getsource(UserCallbackHandler)
    assert "after_exception(" in handler, CHANGED + "UserCallback.after_exception is not called"
    with pytest.raises(InputError, match=r"train\.max_loss"):
        callback.after_exception(None, {})
    ray_train.RaiseFailure(lambda: None).after_exception(None, {})


def test_an_elastic_run_waits_only_until_ray_has_seen_a_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ray_train.START_TIMEOUT_VARIABLE, "1")  # undone afterwards
    ray_train.set_start_timeout(120, is_elastic=False)
    assert os.environ[ray_train.START_TIMEOUT_VARIABLE] == "120"
    ray_train.set_start_timeout(120, is_elastic=True)
    assert os.environ[ray_train.START_TIMEOUT_VARIABLE] == "20"


def test_records_are_removed(tmp_path: Path) -> None:
    ray_train.remove_records(tmp_path)
    (tmp_path / ray_train.MANAGER_SNAPSHOT).write_text('{"ray_version"')
    ray_train.remove_records(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_the_controller_can_run_in_the_driver() -> None:
    """That it does, and can be stopped: `integration/test_train.py`, `e2e/test_signals.py`."""
    initialize = inspect.getsource(DataParallelTrainer._initialize_and_run_controller)
    assert "controller.run.remote()" in initialize, CHANGED + "_initialize_and_run_controller"
    assert TrainController.worker_group_cls is WorkerGroup, CHANGED + "worker_group_cls"
    start = inspect.getsource(WorkerGroup._init_train_context_on_workers)
    assert start.count("=self._") == 3, CHANGED + "_DriverWorkerGroup misses an argument"
    assert "_run_control_loop_iteration()" in inspect.getsource(TrainController.run), CHANGED


def test_only_the_coordinator_registers_workers() -> None:
    methods = ("_maybe_send_resource_request", "_send_resource_request", "_cancel_resource_request")
    for name in methods:
        assert name in vars(ScalingPolicy), CHANGED + f"_UnregisteredScalingPolicy.{name}"


class Recorder(pickle.Unpickler):
    """Records the modules that an object needs."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.modules: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.modules.add(module)
        return super().find_class(module, name)


def test_the_synchronization_actor_needs_no_import_of_ray_train() -> None:
    """That the workers meet at the actor: `integration/test_train.py`."""
    start = inspect.getsource(WorkerGroup._start_impl)
    call = "SynchronizationActor.options("
    assert start.count(call) == 1, CHANGED + "_LeanSynchronizationActor"
    actor_class: Any = sync_actor.SynchronizationActor
    with ray_train.pickled_by_value(*ray_train.SYNCHRONIZATION_MODULES):
        recorder = Recorder(cloudpickle.dumps(actor_class.__ray_metadata__.modified_class))
    recorder.load()
    needed = {module for module in recorder.modules if module.startswith("ray.train")}
    assert not needed, CHANGED + "SYNCHRONIZATION_MODULES"
    assert not cloudpickle.list_registry_pickle_by_value()
