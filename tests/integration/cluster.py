"""The local Ray that tests of a session share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from finsent.adapters.ray_core import ENVIRONMENT, LOCAL_ENVIRONMENT
from finsent.ray_session import session_directory


@contextmanager
def shared_ray() -> Iterator[None]:
    """A Ray of four logical CPUs, as jobs start it; the running one, where there is one."""
    import ray

    if ray.is_initialized():
        yield
        return
    settings = {
        **ENVIRONMENT,
        **LOCAL_ENVIRONMENT,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "240",
        "RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1",  # of a replica that cannot start
    }
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    directory = session_directory()
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
        _temp_dir=str(directory) if directory else None,
    )
    import ray.data  # reads the environment

    # As in jobs, also where Ray Data was imported before.
    ray.data.DataContext.get_current().use_datasource_v2 = False
    try:
        yield
    finally:
        ray.shutdown()
        # Jobs that other tests start have the environment of a user.
        for name in added:
            os.environ.pop(name, None)
