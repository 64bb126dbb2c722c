"""One local Ray for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from ray_jobs._ray import ENVIRONMENT, LOCAL


@pytest.fixture(scope="session", autouse=True)
def local_ray() -> Iterator[None]:
    """A Ray of four logical CPUs, as jobs start it. Its workers have imported what ingest needs."""
    for name, value in {
        **ENVIRONMENT,
        **LOCAL,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "240",
    }.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.range(4, override_num_blocks=4).map_batches(import_ingest).materialize()
    yield
    ray.shutdown()


def import_ingest(batch: Any) -> Any:
    """Import in a worker, so that no test pays for it."""
    import finsent.data.ingest  # noqa: F401

    return batch
