"""Connect to the Ray of a job: the cluster it was submitted to, or a local Ray of its own."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finsent.adapters.ray_core import (
    ENVIRONMENT,
    LOCAL_ENVIRONMENT,
    LONGEST_SOCKET,
    START_SECONDS,
    is_start_timeout,
    join_reader_threads,
    lean_node,
    live_nodes,
    loopback_only,
    protect_auth_token,
    quiet_data,
    set_environment,
)
from finsent.disk import check_free_space
from finsent.errors import InputError, one_line
from finsent.private_directory import RAY_DIRECTORY, private_directory
from finsent.settings import RayConfig, Settings
from finsent.signals import catch_signals

log = logging.getLogger(__name__)

_MIN_SESSION_BYTES = 1_000_000  # of the logs and records of a local Ray
_PROBE_SECONDS = 60.0  # for another machine to look for a file


@contextmanager
def ray_session(
    settings: Settings, runtime_env: dict[str, Any] | None = None, uses_data: bool = True
) -> Iterator[None]:
    """Connect to a cluster, or start a local Ray that is shut down at the block's end.

    A Ray that this process is connected to is used and stays connected.

    Args:
        runtime_env: Ray's runtime environment of this job's workers.
        uses_data: whether the job may use Ray Data, which takes 1 s to import and needs pandas.

    Raises:
        InputError: the cluster does not answer, or a local Ray does not start.
    """
    set_environment(ENVIRONMENT)
    import ray  # after its environment is set; 1 s

    if ray.is_initialized():
        yield
        return
    try:
        if joins_cluster(settings):
            _join_cluster(settings.ray, runtime_env)
        else:
            set_environment(LOCAL_ENVIRONMENT)
            cpus = settings.ray.num_cpus or max(4, len(os.sched_getaffinity(0)))
            log.info("starting a local Ray with %d logical CPUs", cpus)
            _start_local(cpus, settings.ray.worker_logs, runtime_env)
            protect_auth_token()
        catch_signals()
        if uses_data:
            quiet_data()
        if settings.workspace.root.is_local:
            check_shared(settings.workspace.root.path, "storage.root")
        yield
    finally:
        join_reader_threads()
        ray.shutdown()
        catch_signals()


def joins_cluster(settings: Settings) -> bool:
    """Return whether a job joins a cluster instead of starting a local Ray."""
    return bool(settings.ray.address or os.environ.get("RAY_ADDRESS"))


def session_directory() -> Path | None:
    """Return the directory for the files of a local Ray; None: Ray's own choice, by RAY_TMPDIR.

    Ray lets all users of the machine read and write its directory and connect to its sockets.
    The directory is therefore in a private one, which other users cannot enter.

    Raises:
        InputError: the private directory belongs to another user, or is open to others.
    """
    if "RAY_TMPDIR" in os.environ:
        return None
    return private_directory(RAY_DIRECTORY, len(LONGEST_SOCKET)) / "ray"


def _join_cluster(config: RayConfig, runtime_env: dict[str, Any] | None) -> None:
    import ray  # 1 s; with Ray

    try:
        ray.init(
            address=config.address,
            log_to_driver=config.worker_logs,
            logging_level=logging.WARNING,
            runtime_env=runtime_env,
        )
    except (ConnectionError, ValueError) as error:
        if config.address:
            field = f"ray.address={config.address!r}"
        else:
            field = f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')!r}"
        raise InputError(
            f"{field}: no Ray cluster answers ({one_line(error)}). Start one with "
            "`ray start --head`. Where one runs, RAY_AUTH_MODE and the token must be the same here "
            "and there. For a local Ray set ray.address=null and unset RAY_ADDRESS."
        ) from None


def _start_local(cpus: int, worker_logs: bool, runtime_env: dict[str, Any] | None = None) -> None:
    import ray  # 1 s; with Ray

    directory = session_directory()
    # On a full disk Ray times out without a message.
    check_free_space(directory or Path(os.environ["RAY_TMPDIR"]), _MIN_SESSION_BYTES, "RAY_TMPDIR")
    try:
        with loopback_only(), lean_node(worker_logs=worker_logs):
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
            f"ray: a local Ray did not start within its {START_SECONDS} seconds. Free this machine "
            "of other work and try again, or join a cluster by ray.address."
        ) from None


def _exists(path: str) -> bool:
    return Path(path).exists()


def check_shared(root: Path, field: str) -> None:
    """Check that all machines of the cluster see the same directory.

    Args:
        field: setting that names the directory, for messages.

    Raises:
        InputError: a machine does not.
    """
    import ray  # 1 s; with Ray
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
        futures = {
            f"{node.host} ({node.node_id[:8]})": exists.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            ).remote(str(probe))
            for node in others
        }
        blind = [
            name for name, future in futures.items() if not ray.get(future, timeout=_PROBE_SECONDS)
        ]
    finally:
        probe.unlink()
    if blind:
        raise InputError(
            f"{field}={str(root)!r}: {', '.join(blind)} cannot see it. Set {field} to a directory "
            "that every machine of the cluster mounts."
        )


def check_training_shared(settings: Settings) -> None:
    """Check that all machines see the files of trainings, where `storage.root` is in a bucket.

    Raises:
        InputError: a machine does not.
    """
    root = settings.workspace.root
    if not root.is_local:
        check_shared(root.cache.folder, "storage.cache_dir")
