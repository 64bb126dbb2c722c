"""An elastic run on a cluster that loses a node and gains one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, environment

EPOCHS = 55  # so long that it still trains when Ray has noticed the new node, after up to 20 s


@pytest.mark.timeout(900)
def test_training_survives_losing_and_gaining_a_node(tmp_path: Path) -> None:
    env = environment() | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.elastic_driver", str(tmp_path), str(EPOCHS)],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [workers for workers, _ in itertools.groupby(found["workers"])] == [2, 1, 2]
    # Each epoch has each row once, and each step was made once, whoever made it.
    assert found["rows"] == [2000] * EPOCHS
    assert found["steps"] == sorted(set(found["steps"]))
    assert found["steps"][-1] == EPOCHS * 63
    assert found["macro_f1"] > 0.9
    assert "1 of at most 2 worker(s)" in done.stderr
