"""Parts of Ray Core without a stable API: private modules, names of threads and files, texts."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_METRICS = "RAY_enable_metrics_collection"
# Ray reads these variables when it is imported or when its processes start.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no reports to Ray's makers
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that outlives the session would start another Ray
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report() blocks for up to this long; default 2
    "RAY_worker_niceness": "0",  # default 15: workers would yield to all other processes
    "RAY_DEDUP_LOGS": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # in workers; `quiet_data` sets the driver's
    "RAY_DATA_USE_DATASOURCE_V2": "0",  # see `quiet_data`
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; silences its notice
    "TOKENIZERS_PARALLELISM": "false",  # Ray's processes are the parallelism
}
LOCAL_ENVIRONMENT = {  # of a local Ray
    _METRICS: "0",  # no program reads them
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process per run, for machines that go away
}
# The longest path of a socket below Ray's directory. Process ids have up to seven digits.
LONGEST_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0000"
START_SECONDS = 30  # after which Ray gives up starting its processes
_START_TIMEOUT = "timed out during startup"  # Ray raises no class of its own
_READER_THREAD = "iter_threaded"  # of Ray Data
_READER_SECONDS = 5.0
_AUTH_TOKEN = Path(".ray", "auth_token")  # in the home directory


def collects_metrics() -> bool:
    """Return whether this process is connected to a Ray that collects metrics."""
    ray = sys.modules.get("ray")  # not imported: then no session exists
    if ray is None or not ray.is_initialized():
        return False
    return os.environ.get(_METRICS, "1").lower() not in ("0", "false")


def set_environment(variables: Mapping[str, str]) -> None:
    """Set environment variables, except those that the user has set."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True)
class Node:
    """A live machine of the connected cluster."""

    node_id: str
    host: str
    resources: Mapping[str, float]  # logical ones, by name

    @property
    def cpus(self) -> int:
        """Whole logical CPUs."""
        return int(self.resources.get("CPU", 0))

    @property
    def gpus(self) -> int:
        """Whole GPUs."""
        return int(self.resources.get("GPU", 0))

    @property
    def memory(self) -> int:
        """Bytes of memory that tasks can reserve."""
        return int(self.resources.get("memory", 0))


def live_nodes() -> list[Node]:
    """Return the live machines of the connected cluster."""
    import ray  # 1 s; jobs that need no cluster do without

    return [
        Node(node["NodeID"], node["NodeManagerHostname"], node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


@contextmanager
def loopback_only() -> Iterator[None]:
    """Let the processes of a Ray that starts in the block listen on 127.0.0.1 only.

    The environment variable for it is read when Ray is imported.
    """
    from ray._private import ray_constants  # 1 s; with Ray

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def lean_node(*, worker_logs: bool) -> Iterator[None]:
    """Let a Ray that starts in the block start no process that a local Ray does not use.

    These are the autoscaler, the server of the dashboard, and without `worker_logs` the process
    that sends the logs of workers to the driver. Each costs about a CPU second. Ray has no setting.
    """
    from ray._private.node import Node  # 1 s; with Ray

    unused = ["start_monitor", "start_api_server"]
    if not worker_logs:
        unused.append("start_log_monitor")
    before = {name: getattr(Node, name) for name in unused}
    for name in unused:
        setattr(Node, name, _start_nothing)
    try:
        yield
    finally:
        for name, start in before.items():
            setattr(Node, name, start)


def _start_nothing(node: object, **_: object) -> None:
    """Replace a method of Ray's `Node` that starts a process."""


def is_start_timeout(error: BaseException) -> bool:
    """Return whether a local Ray did not start within `START_SECONDS`."""
    return _START_TIMEOUT in str(error)


def join_reader_threads() -> None:
    """Wait for the threads of Ray Data, which outlive an iteration that was left early.

    Ray ends the process with code 1 and no message when a thread calls Ray after its shutdown.
    """
    for thread in threading.enumerate():
        if thread.name == _READER_THREAD:
            thread.join(timeout=_READER_SECONDS)


def protect_auth_token() -> None:
    """Close the cluster's token to other users: Ray writes the file with the process's umask."""
    token = Path.home() / _AUTH_TOKEN
    if token.is_file():
        token.chmod(0o600)


def quiet_data() -> None:
    """Switch off Ray Data's progress bars and informational log lines."""
    from ray.data import DataContext  # 1 s; with Ray

    context = DataContext.get_current()
    context.enable_progress_bars = False  # jobs have progress bars of their own
    # The newer Parquet reader starts an actor and idle workers for each dataset that it opens.
    context.use_datasource_v2 = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs that the progress bars are off.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
