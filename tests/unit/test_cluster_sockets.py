"""HAProxy's sockets in the directory of `make cluster-up` have paths that HAProxy accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.nodes import HAPROXY
from serve_app.launch.private_haproxy import prepare_haproxy

pytestmark = pytest.mark.unit

MAX_PATH = 97  # HAProxy refuses a longer path: "socket path ... too long (max 97)"
NODE_ID = "0" * 56  # Ray's folder of a node, between the directory and the socket


def test_sockets_of_the_cluster_fit(tmp_path: Path) -> None:
    variables = prepare_haproxy(tmp_path / "haproxy", ports=None)
    directory = Path("/tmp/finsent-cluster-99999", HAPROXY, NODE_ID)
    sockets = [Path(value).name for value in variables.values() if value.endswith(".sock")]
    assert len(sockets) == 2
    assert all(len(str(directory / name)) <= MAX_PATH for name in sockets)
