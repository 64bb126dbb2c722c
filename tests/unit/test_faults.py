"""The page of the faults and its records.

tests/integration/test_faults_load.py runs the clients and the load balancer.
"""

from __future__ import annotations

import pytest

from benchmarks.faults.catalog import FAULTS
from benchmarks.faults.page import PAGE, render
from benchmarks.faults.record import FaultRecord, measured

pytestmark = pytest.mark.unit


def test_page_is_that_of_the_records() -> None:
    assert PAGE.read_text() == render(measured()), "run `python -m benchmarks.faults`"


def test_each_fault_has_a_record_that_meets_the_bars() -> None:
    records = measured()
    assert set(records) == {fault.name for fault in FAULTS}
    for record in records.values():
        assert record.recovery_seconds is not None
        assert record.failed == 0
        assert record.exit_code in (None, 0)
        assert record.epoch_rows_equal is not False
        assert record.weights_equal is not False


def test_page_shows_what_failed() -> None:
    record = FaultRecord(
        name="serve_worker_sigkill",
        recovery_seconds=None,
        requests=1200,
        failures={"503": 3, "ReadTimeout": 1},
        slowest_seconds=1.5,
    )
    page = render({record.name: record})
    assert "| `serve` | SIGKILL of a worker node | none | 4 of 1,200 |  |  |" in page
    assert "Failed requests by status or error: 503: 3, ReadTimeout: 1." in page


def test_page_shows_what_the_user_sees() -> None:
    record = FaultRecord(
        name="train_worker_sigkill_inside_epoch",
        recovery_seconds=12.34,
        exit_code=1,
        last_lines=("error: no", "end"),
        epoch_rows_equal=True,
        weights_equal=False,
    )
    page = render({record.name: record})
    assert "| 12.3 |  | equal | not equal |" in page
    assert "ended with exit code 1. Its last lines:\n\n```text\nerror: no\nend\n```" in page
