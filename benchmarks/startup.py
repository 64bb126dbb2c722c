"""CPU seconds of a debug pipeline until its first training step, and its duration."""

from __future__ import annotations

import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from benchmarks.settings import BenchSettings, benchmark
from finsent.memory import process_tree
from finsent.training.metrics_log import METRICS_FILE
from ray_jobs._cli import Result, main

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-m", "ray_jobs.pipeline", "configs/debug.yaml")
_POLL_SECONDS = 0.05  # between two looks at the processes
_WORKER = "ray::RayTrainWorker"


@dataclass(frozen=True)
class Start:
    """One run of the pipeline. CPU seconds count until the first training step."""

    cpu_seconds: float
    driver_cpu_seconds: float
    worker_cpu_seconds: float  # of all training workers
    processes: int
    first_step_seconds: float  # wall time from the start of the driver
    seconds: float  # wall time of the complete pipeline


@dataclass
class _Usage:
    """CPU seconds and names of a run's processes, living and ended."""

    cpu: dict[int, float] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def look(self, root: int) -> None:
        for pid in process_tree(root):
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                times = process.cpu_times()
                self.cpu[pid] = times.user + times.system
                self.names[pid] = " ".join(process.cmdline())

    def total(self, name: str) -> float:
        """Return the CPU seconds of all processes whose command begins with a name."""
        return sum(cpu for pid, cpu in self.cpu.items() if self.names[pid].startswith(name))


def measure(checkout: Path) -> Start:
    """Run the pipeline of a checkout.

    Raises:
        CalledProcessError: the pipeline failed.
    """
    usage, first_step = _Usage(), None
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with tempfile.TemporaryDirectory() as root, (Path(root) / "log").open("w") as output:
        started = time.perf_counter()
        command = [*_COMMAND, f"storage.root={root}"]
        with subprocess.Popen(
            command, cwd=checkout, env=environment, stdout=output, stderr=output
        ) as process:
            while first_step is None and process.poll() is None:
                usage.look(process.pid)
                # The file is created just before the first step.
                if any(Path(root).glob(f"runs/*/{METRICS_FILE}")):
                    first_step = time.perf_counter() - started
                time.sleep(_POLL_SECONDS)
        if process.returncode or first_step is None:
            text = (Path(root) / "log").read_text()
            raise subprocess.CalledProcessError(process.returncode, command, stderr=text)
    return Start(
        cpu_seconds=round(usage.total(""), 2),
        driver_cpu_seconds=round(usage.cpu[process.pid], 2),
        worker_cpu_seconds=round(usage.total(_WORKER), 2),
        processes=len(usage.cpu),
        first_step_seconds=round(first_step, 2),
        seconds=round(time.perf_counter() - started, 2),
    )


def _median(starts: list[Start]) -> dict[str, float]:
    columns = zip(*(asdict(start).values() for start in starts), strict=True)
    return dict(zip(asdict(starts[0]), map(statistics.median, columns), strict=True))


def bench_startup(settings: BenchSettings) -> Result:
    """Run the pipelines of the checkouts in turn, and compare the medians of the rounds."""
    checkouts = {"this": Path(__file__).parents[1]}
    if settings.bench.checkout is not None:
        checkouts["other"] = Path(settings.bench.checkout).absolute()
    starts: Mapping[str, list[Start]] = {name: [] for name in checkouts}
    for number in range(settings.bench.rounds):
        for name, checkout in checkouts.items():
            starts[name].append(measure(checkout))
            log.info("round %d, %s: %s", number + 1, name, starts[name][-1])
    medians = {name: _median(runs) for name, runs in starts.items()}
    result: Result = {**medians["this"], "pipeline_seconds": medians["this"].pop("seconds")}
    result.pop("seconds")
    if "other" in medians:
        other = medians["other"]
        result["cpu_over_other"] = result["cpu_seconds"] / other["cpu_seconds"]
        result["other"] = other
    result["rounds"] = {name: [asdict(run) for run in runs] for name, runs in starts.items()}
    return result


JOB = benchmark(
    "startup",
    bench_startup,
    summary="Measure the CPU seconds of `finsent pipeline configs/debug.yaml` until the first "
    "training step, over all processes, and the duration of the pipeline.",
    result="cpu_seconds, driver_cpu_seconds, worker_cpu_seconds, processes, first_step_seconds, "
    "pipeline_seconds, cpu_over_other",
    sections=(),
)

if __name__ == "__main__":
    main(JOB)
