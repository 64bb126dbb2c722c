"""A sweep on a cluster that loses a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import run_driver


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
