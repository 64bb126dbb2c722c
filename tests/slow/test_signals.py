"""SIGTERM while ingesting, SIGINT while training, each in its own job.

tests/e2e/test_signals.py sends SIGINT to a resumed training.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.test_signals import check_signal


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_leaves_nothing_behind(project: Path, signum: signal.Signals) -> None:
    check_signal(project, signum)
