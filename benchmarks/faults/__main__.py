"""Plant faults in a cluster of namespaced nodes: `python -m benchmarks.faults`."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from benchmarks.faults.catalog import FAULTS
from benchmarks.faults.page import PAGE, render
from benchmarks.faults.record import MEASURED, measured
from benchmarks.faults.subject import Subject
from benchmarks.settings import BenchSettings, benchmark
from finsent.errors import InputError
from finsent.files import write_text
from ray_jobs._cli import Result, main

log = logging.getLogger(__name__)


def bench_faults(settings: BenchSettings) -> Result:
    """Plant the requested faults, store their records, and generate the page."""
    selected = [fault for fault in FAULTS if settings.bench.fault in (None, fault.name)]
    if not selected:
        names = ", ".join(fault.name for fault in FAULTS)
        raise InputError(
            f"bench.fault={settings.bench.fault!r}: no such fault. Use one of {names}."
        )
    subject = Subject(
        settings.workspace.root.path.absolute(), settings.data.name, settings.serve.model
    )
    MEASURED.mkdir(exist_ok=True)
    for fault in selected:
        log.info("benchmarks.faults: %s", fault.name)
        with tempfile.TemporaryDirectory(prefix="fault-") as name:
            record = fault.plant(subject, Path(name))
        record.write(MEASURED / f"{fault.name}.json")
    records = measured()
    write_text(PAGE, render(records))
    return {fault.name: records[fault.name].model_dump(mode="json") for fault in selected}


JOB = benchmark(
    "faults",
    bench_faults,
    summary="Kill nodes of a cluster of a head and two workers, which have network and PID "
    "namespaces of their own, and generate docs/faults.md. Needs root, the dataset data.name and "
    "the model serve.model below storage.root, e.g. of `finsent pipeline debug`.",
    result="one record per fault",
    sections=("data", "serve"),
)

if __name__ == "__main__":
    main(JOB)
