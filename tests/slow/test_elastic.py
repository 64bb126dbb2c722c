"""Runs on clusters that lose a node and gain one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.commands import run_driver

EPOCHS = 55  # trains longer than the 20 s that Ray takes to see the new node


@pytest.mark.timeout(900)
def test_training_survives_losing_and_gaining_a_node(tmp_path: Path) -> None:
    """Fast, of its parts: `tests/integration/test_train.py` (a killed worker, fewer workers)."""
    done = run_driver("tests.slow.elastic_driver", tmp_path, str(EPOCHS), timeout=850)
    assert done.code == 0, done.err[-3000:]
    result = done.result
    workers = [count for count, _ in itertools.groupby(result["workers"])]
    assert workers == [2, 1, 2], done.err[-5000:]
    # Each epoch has each row once, and each step is logged once.
    assert result["rows"] == [2000] * EPOCHS
    assert result["steps"] == sorted(set(result["steps"]))
    assert result["steps"][-1] == EPOCHS * 63
    assert result["macro_f1"] > 0.9
    assert "1 of at most 2 worker(s)" in done.err


@pytest.mark.timeout(700)
def test_losing_a_node_costs_only_its_trials(tmp_path: Path) -> None:
    """Fast: test_a_trial_that_loses_its_process_... in `tests/integration/test_sweep.py`."""
    done = run_driver("tests.slow.sweep_driver", tmp_path, timeout=650)
    assert done.code == 0, done.err[-4000:]
    result = done.result
    assert result["statuses"] == ["finished"] * 2, result
    for epochs in result["epochs"]:
        assert epochs == [*range(1, result["wanted"] + 1)]
    assert result["untouched"] == 1, "the other trial was not started again"
