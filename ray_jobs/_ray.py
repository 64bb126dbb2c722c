"""The Ray that a job runs on: the cluster it was submitted to, or a local one of its own."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finsent.disk import check_room
from finsent.errors import InputError
from finsent.private_directory import RAY_DIRECTORY, private_directory
from finsent.settings import Settings
from ray_jobs._cli import catch_signals

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

# The longest path of a socket that Ray makes; process ids have up to seven digits.
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0000"

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
                    f"({str(error).splitlines()[0]}); "
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
            _protect_token()
        catch_signals()
        _quiet_data()
        check_shared(settings.root)
        yield
    finally:
        _wait_for_readers()
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
    return private_directory(RAY_DIRECTORY, len(_SOCKET)) / "ray"


def _start_local(cpus: int, worker_logs: bool, runtime_env: dict[str, Any] | None = None) -> None:
    import ray
    from ray._private import ray_constants

    directory = session_directory()
    # Where that is full, Ray says nothing and times out.
    check_room(directory or Path(os.environ["RAY_TMPDIR"]), _SESSION_BYTES, "RAY_TMPDIR")
    # Where this is on, Ray's processes listen on an address that other machines reach. The
    # environment variable for it is read when Ray is imported, which has happened.
    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=worker_logs,
            logging_level=logging.ERROR,
            runtime_env=runtime_env,
            _temp_dir=str(directory) if directory else None,
        )
    except Exception as error:  # Ray raises no class of its own
        if "timed out during startup" not in str(error):
            raise
        # No second try: this process cannot end what it has started, only take it along.
        raise InputError(
            "ray: a local Ray did not start within its 30 seconds; free this machine of other "
            "work and try again, or join a cluster by ray.address"
        ) from None
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def _wait_for_readers() -> None:
    """Let Ray Data's threads end, which outlive an iteration that was left by a tenth of a second.

    Ray ends the process at once, with code 1 and no message, when one calls it after its shutdown.
    """
    for thread in threading.enumerate():
        if thread.name == "iter_threaded":
            thread.join(timeout=5)


def _protect_token() -> None:
    # Ray writes its cluster token with the process's umask.
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file():
        token.chmod(0o600)


def _quiet_data() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False  # jobs show bars of their own
    context.use_datasource_v2 = False  # see ENVIRONMENT
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars are off"


def _exists(path: str) -> bool:
    return Path(path).exists()


def check_shared(root: Path) -> None:
    """On several machines, check that all see the same `storage.root`.

    Raises:
        InputError: a machine does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return
    root.mkdir(parents=True, exist_ok=True)
    probe = root / f".probe-{uuid.uuid4().hex}"
    probe.touch()
    try:
        sees = ray.remote(num_cpus=0)(_exists)
        answers = {
            f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})": sees.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
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
