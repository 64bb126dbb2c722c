"""Change HAProxy's configuration and become HAProxy: Ray Serve starts this in HAProxy's place.

Ray 2.60 writes a configuration in which all users of the machine control HAProxy, which shows its
statistics on all addresses, and which answers 404 while it knows no application. HAProxy also
outlives the process that controls it: HAProxy would hold the port and send requests to replicas
that are gone. Ray has no settings for these.

This file runs by its path with the standard library only, as Ray starts HAProxy again with each
change of replicas. Arguments: the service's directory, HAProxy's program, HAProxy's arguments.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_MARK = (
    "# Changed by finsent: private admin socket, statistics on loopback, 503 without replicas.\n"
)
_NOT_READY = (
    '{"type":"urn:finsent:problem:not_ready","title":"No model is loaded yet","status":503,'
    '"code":"not_ready","detail":"the service starts; try again in a second"}'
)
# By section, in order: the pattern of a line that Ray writes, and its replacement.
_CHANGES = {
    "global": (r"^( *stats socket .*) mode 666 ", r"\1 mode 600 "),
    "frontend prometheus": (r"^( *bind) :(\d+)$", r"\1 127.0.0.1:\2"),
    "backend default_backend": (
        r"^( *http-request return) status 404 .*$",
        rf"\1 status 503 content-type application/problem+json string '{_NOT_READY}' "
        "hdr Retry-After 1",
    ),
    "listen stats": (r"^( *bind) \*:(\d+)$", r"\1 127.0.0.1:\2"),
}


def change_config(config: str) -> str:
    """Return Ray's configuration of HAProxy with the changes of this service.

    Raises:
        ValueError: the configuration is not as Ray 2.60 writes it.
    """
    section, lines, changed_sections = "", [_MARK.rstrip()], []
    for line in config.splitlines():
        if line and not line[0].isspace():
            section = line.strip()
        pattern, replacement = _CHANGES.get(section, (None, ""))
        count = 0
        if pattern is not None:
            line, count = re.subn(pattern, replacement, line)
        changed_sections += [section] * count
        lines.append(line)
    if changed_sections != [*_CHANGES]:
        raise ValueError(f"unknown form of HAProxy's configuration: changed {changed_sections}")
    return "\n".join(lines) + "\n"


def _change_file(path: Path) -> None:
    text = path.read_text()
    if not text.startswith(_MARK):  # Ray writes the file anew before each start
        staged = path.with_suffix(".changed")
        staged.write_text(change_config(text))
        staged.replace(path)


def _end_with_parent() -> None:
    """Let the system kill this process, later HAProxy, when its parent, Ray's manager, dies."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent or parent == 1:
        sys.exit("HAProxy's manager has ended")


def _record(directory: Path) -> None:
    # Found by the path of this folder, which is set below: this file is not part of a package here.
    from haproxy_watchdog import RECORDS, start_time  # type: ignore[import-not-found]

    pid = os.getpid()  # stays the same when this process becomes HAProxy
    records = directory / RECORDS
    for record in records.glob("[0-9]*"):
        with suppress(FileNotFoundError):  # another launcher removed it meanwhile
            if start_time(int(record.name)) != record.read_text():
                record.unlink()
    staged = records / f"new-{pid}"  # a reader must not see a partial record
    staged.write_text(start_time(pid))
    staged.rename(records / str(pid))


def main(directory: str, program: str, *arguments: str) -> None:
    """Change the configuration, record the process, and become HAProxy."""
    os.umask(0o077)
    _end_with_parent()
    _change_file(Path(arguments[arguments.index("-f") + 1]))
    _record(Path(directory))
    os.execv(program, [program, *arguments])


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))
    main(*sys.argv[1:])
