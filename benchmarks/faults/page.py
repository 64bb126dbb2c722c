"""The page `docs/faults.md`, generated from the records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.faults.catalog import FAULTS, Fault
from benchmarks.faults.record import FaultRecord

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
_HEAD = """\
# Faults

`python -m benchmarks.faults` plants these faults in a cluster of a head and two worker nodes on one
machine, and generates this page. Each node has its own network namespace, PID namespace, address,
temporary directory and object store. The nodes share the directory `storage.root`. Each row is one
measurement on two cores that also ran other programs.

| job | fault | seconds to recovery | failed requests | rows and steps | final weights |
|---|---|---|---|---|---|
"""


def render(records: Mapping[str, FaultRecord]) -> str:
    """Return the page: a table, and a paragraph per measured fault."""
    measured = [(fault, records[fault.name]) for fault in FAULTS if fault.name in records]
    rows = "".join(_row(fault, record) for fault, record in measured)
    return _HEAD + rows + "".join(_paragraph(fault, record) for fault, record in measured)


def _row(fault: Fault, record: FaultRecord) -> str:
    requests = "" if record.requests is None else f"{record.failed} of {record.requests:,}"
    cells = [
        f"`{fault.job}`",
        fault.title,
        _seconds(record),
        requests,
        _equality(record.epoch_rows_equal),
        _equality(record.weights_equal),
    ]
    return f"| {' | '.join(cells)} |\n"


def _seconds(record: FaultRecord) -> str:
    return "none" if record.recovery_seconds is None else f"{record.recovery_seconds:.1f}"


def _equality(equal: bool | None) -> str:
    return {None: "", True: "equal", False: "not equal"}[equal]


def _paragraph(fault: Fault, record: FaultRecord) -> str:
    """Return the section of a fault: what happened, and what the user saw."""
    text = f"\n## `{fault.job}`: {fault.title}\n\n{fault.setup}"
    if record.slowest_seconds is not None:
        text += f" The slowest answer took {record.slowest_seconds:.2f} s."
    if record.failures:
        failures = ", ".join(f"{name}: {count}" for name, count in sorted(record.failures.items()))
        text += f" Failed requests by status or error: {failures}."
    if record.last_lines:
        end = (
            "did not end"
            if record.exit_code is None
            else f"ended with exit code {record.exit_code}"
        )
        lines = "\n".join(record.last_lines)
        text += f" The job {end}. Its last lines:\n\n```text\n{lines}\n```"
    return text + "\n"
