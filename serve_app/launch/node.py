"""Print the environment of a cluster's node that serves fast, for a shell.

    eval "$(python -m serve_app.launch.node)"
    ray start ...

Run it on each node before `ray start`: Ray's processes read these variables at their start. The
file of HAProxy's launcher is in a new private directory of the node.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from finsent.errors import InputError
from serve_app.launch.environment import FAST, unless_set
from serve_app.launch.private_haproxy import parent_directory, prepare_haproxy

_PREFIX = "finsent-node-"  # shorter than that of a service, whose directories may be removed


def node_environment(directory: Path) -> dict[str, str]:
    """Return the variables of a node, and make the directory of its HAProxy.

    Raises:
        InputError: there is no HAProxy, or programs in the directory may not run.
    """
    return unless_set(FAST) | prepare_haproxy(directory, ports=None)


def as_shell(variables: Mapping[str, str]) -> str:
    """Return commands of a shell that set variables; values may have several lines."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


if __name__ == "__main__":
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent_directory()))
    try:
        sys.stdout.write(as_shell(node_environment(directory)))
    except InputError as error:
        sys.exit(str(error))
