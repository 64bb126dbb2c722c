"""A training on a cluster that loses a node and gains one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.commands import run_driver

STEPS = 63  # of an epoch


@pytest.mark.timeout(900)
def test_training_survives_losing_and_gaining_a_node(tmp_path: Path) -> None:
    """Fast, of its parts: `tests/integration/test_train.py` (a killed worker, fewer workers)."""
    done = run_driver("tests.slow.elastic_driver", tmp_path, timeout=850)
    assert done.code == 0, done.err[-3000:]
    result = done.result
    workers = [count for count, _ in itertools.groupby(result["workers"])]
    assert workers == [2, 1, 2], done.err[-5000:]
    # Each epoch has each row once, and each step is logged once.
    assert {*result["rows"]} == {2000}
    last = result["steps"][-1]
    logged = [step for step in range(1, last + 1) if step % 5 == 0 or step % STEPS == 0]
    assert result["steps"] == logged
    assert len(result["rows"]) == last // STEPS > 1
    assert result["macro_f1"] > 0.9
    assert "1 of at most 2 worker(s)" in done.err
