"""Runs on clusters that lose a node and gain one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.commands import run_driver

EPOCHS = 55  # so long that it still trains when Ray has noticed the new node, after up to 20 s


@pytest.mark.timeout(900)
def test_training_survives_losing_and_gaining_a_node(tmp_path: Path) -> None:
    """Fast, of its parts: `tests/integration/test_train.py` (a killed worker, fewer workers)."""
    done = run_driver("tests.slow.elastic_driver", tmp_path, str(EPOCHS), timeout=850)
    assert done.code == 0, done.err[-3000:]
    found = done.result
    assert [workers for workers, _ in itertools.groupby(found["workers"])] == [2, 1, 2]
    # Each epoch has each row once, and each step was made once, whoever made it.
    assert found["rows"] == [2000] * EPOCHS
    assert found["steps"] == sorted(set(found["steps"]))
    assert found["steps"][-1] == EPOCHS * 63
    assert found["macro_f1"] > 0.9
    assert "1 of at most 2 worker(s)" in done.err


@pytest.mark.timeout(700)
def test_losing_a_node_costs_only_its_trials(tmp_path: Path) -> None:
    """Fast: test_a_trial_that_loses_its_process_... in `tests/integration/test_sweep.py`."""
    done = run_driver("tests.slow.sweep_driver", tmp_path, timeout=650)
    assert done.code == 0, done.err[-4000:]
    found = done.result
    assert found["statuses"] == ["finished"] * 2, found
    for epochs in found["epochs"]:
        assert epochs == [*range(1, found["wanted"] + 1)]
    assert found["untouched"] == 1, "the other trial was not started again"
