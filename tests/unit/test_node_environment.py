"""The environment of a cluster's node: a shell sets exactly what Ray's processes read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from serve_app.launch.environment import FAST
from serve_app.launch.node import as_shell, node_environment


def test_a_shell_sets_the_variables_of_a_node(tmp_path: Path) -> None:
    variables = node_environment(tmp_path / "node")
    assert FAST.items() <= variables.items()
    assert "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S" in variables
    assert not any(
        "PORT" in name for name in variables.keys() - FAST.keys()
    )  # Ray's own, everywhere
    launcher = Path(variables["RAY_SERVE_HAPROXY_BINARY_PATH"])
    assert os.access(launcher, os.X_OK)
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700

    script = as_shell(variables) + "env -0"
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    lines = dict(line.split("=", 1) for line in shell.stdout.split("\0") if line)
    assert {name: lines[name] for name in variables} == variables
