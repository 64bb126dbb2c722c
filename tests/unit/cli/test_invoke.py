"""`invoke` runs a job inside a process."""

from __future__ import annotations

import logging
import signal
import sys

import pytest

from ray_jobs._cli import Call, Interrupted, Result, invoke
from tests.unit.cli.jobs import failing, job

pytestmark = pytest.mark.cost(8, "starts processes that import every job")


def test_invoke_returns_the_output_of_the_command_and_restores_logging() -> None:
    def run(_call: Call) -> Result:
        sys.stdout.write("a library prints\n")
        logging.getLogger("finsent.probe").info("told")
        return {"answer": 42}

    root, ray = logging.getLogger(), logging.getLogger("ray")
    before = (root.handlers[:], root.level, ray.level, signal.getsignal(signal.SIGINT))
    finished = invoke(job(run), [])
    assert (finished.code, finished.result["answer"]) == (0, 42)
    assert finished.out.count("\n") == 1
    assert "a library prints" in finished.err and finished.err.rstrip().endswith("told")
    assert before == (root.handlers[:], root.level, ray.level, signal.getsignal(signal.SIGINT))


def test_invoke_raises_when_a_signal_ends_the_job() -> None:
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        invoke(failing(Interrupted(signal.SIGTERM)), [])
