"""The Ray that a job runs on: the cluster it was submitted to, or a local one of its own."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finsent.adapters.ray_core import (
    LONGEST_SOCKET,
    START_SECONDS,
    is_start_timeout,
    join_reader_threads,
    live_nodes,
    loopback_only,
    protect_auth_token,
    quiet_data,
)
from finsent.disk import check_room
from finsent.errors import InputError, one_line
from finsent.settings import Settings
from ray_jobs._private import RAY_DIRECTORY, private_directory
from ray_jobs._signals import catch_signals

log = logging.getLogger(__name__)

# Read by Ray when it is imported or when its processes start. Whoever sets them before is right.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report to anybody
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report() blocks for up to this long; default 2
    "RAY_worker_niceness": "0",  # default 15: workers would yield to everything else
    "RAY_DEDUP_LOGS": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # in workers; the driver's is set below
    # Of Parquet: the newer reader starts an actor and idle workers for each dataset that it opens.
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; silences its notice
    "TOKENIZERS_PARALLELISM": "false",  # Ray's processes are the parallelism
}


# The same, of a local Ray.
LOCAL = {
    "RAY_enable_metrics_collection": "0",  # nobody scrapes it
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process a run, for nodes that are taken away
}

_SESSION_BYTES = 1_000_000  # at least, of the logs and records of a local Ray


@contextmanager
def ray_session(settings: Settings, runtime_env: dict[str, Any] | None = None) -> Iterator[None]:
    """A connected Ray. One that this job started is shut down at the end, whatever happened.

    Args:
        runtime_env: Ray's runtime environment of this job's workers.

    Raises:
        InputError: the address of `ray.address` does not answer.
    """
    given = settings.ray.address
    joined = joins_cluster(settings)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    source = f"ray.address={given!r}" if given else f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')!r}"
    try:
        if joined:
            try:
                ray.init(
                    address=given,
                    log_to_driver=settings.ray.worker_logs,
                    logging_level=logging.WARNING,
                    runtime_env=runtime_env,
                )
            except (ConnectionError, ValueError) as error:
                raise InputError(
                    f"{source}: no Ray cluster answers "
                    f"({one_line(error)}); "
                    "start one with `ray start --head`; where one runs, RAY_AUTH_MODE and the "
                    "token must be the same here and there; for a local Ray set ray.address=null "
                    "and unset RAY_ADDRESS"
                ) from None
        else:
            for name, value in LOCAL.items():
                os.environ.setdefault(name, value)
            cpus = settings.ray.num_cpus or max(4, len(os.sched_getaffinity(0)))
            log.info("starting a local Ray with %d logical CPUs", cpus)
            _start_local(cpus, settings.ray.worker_logs, runtime_env)
            protect_auth_token()
        catch_signals()
        quiet_data()
        check_shared(settings.root)
        yield
    finally:
        join_reader_threads()
        ray.shutdown()
        catch_signals()


def joins_cluster(settings: Settings) -> bool:
    """Whether a job joins a cluster instead of starting a local Ray."""
    return bool(settings.ray.address or os.environ.get("RAY_ADDRESS"))


def session_directory() -> Path | None:
    """Return the directory for the files of a local Ray; None: Ray's own choice, by RAY_TMPDIR.

    Ray lets all users of the machine read, write and connect to what is below its directory, so
    that directory is in one that they cannot enter.

    Raises:
        InputError: that one is not private.
    """
    if "RAY_TMPDIR" in os.environ:
        return None
    return private_directory(RAY_DIRECTORY, len(LONGEST_SOCKET)) / "ray"


def _start_local(cpus: int, worker_logs: bool, runtime_env: dict[str, Any] | None = None) -> None:
    import ray

    directory = session_directory()
    # Where that is full, Ray times out without a message.
    check_room(directory or Path(os.environ["RAY_TMPDIR"]), _SESSION_BYTES, "RAY_TMPDIR")
    try:
        with loopback_only():
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=worker_logs,
                logging_level=logging.ERROR,
                runtime_env=runtime_env,
                _temp_dir=str(directory) if directory else None,
            )
    except Exception as error:
        if not is_start_timeout(error):
            raise
        # No retry: the processes that Ray has started end only with this one.
        raise InputError(
            f"ray: a local Ray did not start within its {START_SECONDS} seconds; free this machine "
            "of other work and try again, or join a cluster by ray.address"
        ) from None


def _exists(path: str) -> bool:
    return Path(path).exists()


def check_shared(root: Path) -> None:
    """On several machines, check that all see the same `storage.root`.

    Raises:
        InputError: a machine does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    this_node = ray.get_runtime_context().get_node_id()
    others = [node for node in live_nodes() if node.node_id != this_node]
    if not others:
        return
    root.mkdir(parents=True, exist_ok=True)
    probe = root / f".probe-{uuid.uuid4().hex}"
    probe.touch()
    try:
        exists = ray.remote(num_cpus=0)(_exists)
        answers = {
            f"{node.host} ({node.node_id[:8]})": exists.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            ).remote(str(probe))
            for node in others
        }
        blind = [name for name, answer in answers.items() if not ray.get(answer, timeout=60)]
    finally:
        probe.unlink()
    if blind:
        raise InputError(
            f"storage.root={str(root)!r}: {', '.join(blind)} cannot see it; set storage.root to a "
            "directory that every machine of the cluster mounts"
        )
