"""A network of hosts on this machine: a network namespace per host, joined by a bridge."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from finsent.errors import InputError

PROGRAMS = ("ip", "unshare", "nsenter", "setpriv")
_NAMESPACE, _BRIDGE = "faults-", "fb"  # before the id of the process that made them


@dataclass(frozen=True)
class Host:
    """A network namespace with an address of its own."""

    namespace: str
    address: str
    link: str  # the bridge's end of the host's cable


def missing_requirement() -> str | None:
    """Return why this machine cannot run the network; None: the machine can."""
    if os.geteuid() != 0:
        return "network namespaces need root. Run the command as root."
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{missing[0]} is not installed. Run `apt-get install iproute2 util-linux`."
    return None


@contextmanager
def network(host_count: int) -> Iterator[tuple[Host, ...]]:
    """Make a bridge and hosts, and remove them when the context ends.

    The names and the range of addresses contain this process's id, so that two runs do not meet.

    Raises:
        InputError: the machine cannot run the network.
    """
    if problem := missing_requirement():
        raise InputError(f"benchmarks.faults: {problem}")
    _remove_abandoned()
    bridge, subnet = f"{_BRIDGE}{os.getpid()}", f"10.213.{os.getpid() % 256}"
    with ExitStack() as removal:
        _ip("link", "add", bridge, "type", "bridge")
        removal.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        hosts = []
        for number in range(host_count):
            host = Host(
                namespace=f"{_NAMESPACE}{os.getpid()}-{number}",
                address=f"{subnet}.{number + 2}",
                link=f"fv{os.getpid()}-{number}",
            )
            _ip("netns", "add", host.namespace)
            removal.callback(_ip, "netns", "del", host.namespace)
            _connect(host, bridge, f"{subnet}.1")
            hosts.append(host)
        yield tuple(hosts)


def _connect(host: Host, bridge: str, gateway: str) -> None:
    """Lay a cable from the host to the bridge. The kernel removes it with the host's namespace.

    Programs find the host's own address by its default route, which leads to this machine.
    """
    peer = ("peer", "name", "eth0", "netns", host.namespace)
    _ip("link", "add", host.link, "type", "veth", *peer)
    _ip("link", "set", host.link, "master", bridge, "up")
    _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", host.namespace, "link", "set", device, "up")
    _ip("-n", host.namespace, "route", "add", "default", "via", gateway)


def _remove_abandoned() -> None:
    """Remove the namespaces and bridges of runs that were killed."""
    for path in Path("/run/netns").glob(f"{_NAMESPACE}*"):
        if not psutil.pid_exists(int(path.name.split("-")[1])):
            _ip("netns", "del", path.name)
    for path in Path("/sys/class/net").glob(f"{_BRIDGE}[0-9]*"):
        if not psutil.pid_exists(int(path.name.removeprefix(_BRIDGE))):
            _ip("link", "del", path.name)


def _ip(*arguments: str) -> None:
    """Run `ip`.

    Raises:
        InputError: the command failed.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"benchmarks.faults: `ip {' '.join(arguments)}` failed: {done.stderr.strip()}. "
            "Run the command as root of a machine that allows network namespaces."
        )
