"""One local Ray for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ray_jobs._ray import ENVIRONMENT


@pytest.fixture(scope="session", autouse=True)
def local_ray() -> Iterator[None]:
    """A Ray of four logical CPUs, as jobs start it."""
    for name, value in {
        **ENVIRONMENT,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "240",
    }.items():
        os.environ.setdefault(name, value)
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
