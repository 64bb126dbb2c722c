"""Machines and costs of large loads, from measured rates: the table of cluster/SCALING.md.

`python -m benchmarks.scaling_plans` writes the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.flops import training_flops
from benchmarks.scaling_simulation import ServiceModel, largest_rate, simulate_arrivals
from finsent.files import write_text

PAGE = Path(__file__).resolve().parents[1] / "cluster" / "SCALING.md"
BEGIN, END = "<!-- plans -->", "<!-- end of plans -->"

# Measured, with MiniLM on two cores that other programs also used.
ENGINE_ROWS = 365  # rows/s of a core, OpenVINO int8 (finsent/inference/README.md)
BATCH_SECONDS = 0.0011  # of a micro-batch without its rows (serve_app/service/packing.py)
MAX_ROWS = 16
GATEWAY_SECONDS = 0.00114  # CPU time of the Python thread, per request (serve_app/PERFORMANCE.md)
OTHER_SECONDS = 0.00043  # CPU time of HAProxy and Ray, per request, `fused` (PERFORMANCE.md)
INGEST_ROWS = 190_800  # rows/s of two cores (docs/benchmarks.md)
BERT_BASE_ROWS = 504  # training rows/s of one H100 in bf16 (finsent/training/README.md)
WORKER_EFFICIENCY = 1.68 / 2  # of two workers over two times one (docs/benchmarks.md)
TOKENS, SQUARED_TOKENS = 29.0, 1_050.0  # means of a row's tokens and their squares

# Assumed.
CPU_HOUR = 0.045  # US dollars per virtual CPU of a compute-optimized machine, on demand, 2026-12
GPU_HOUR = 4.0  # US dollars per H100, on demand, 2026-12
MACHINE_CPUS = 32
GPUS = 8  # of a GPU machine
USE = 0.8  # share of the largest rate that is planned for: failures, upgrades, uneven load
PEAK = 3.0  # of a day's rate over its mean
P99_MS = 100.0
REPLICA_CPUS = 4  # three streams, and the Python thread
TOKEN_BYTES = 4

_DAY, _HOUR = 86_400, 3_600
_SIMULATED_SECONDS = 4.0


@dataclass(frozen=True)
class Plan:
    """An answer to a question about a large load."""

    name: str
    machines: str
    cost: str
    bottleneck: str

    @property
    def summary(self) -> str:
        """The plan as a row of a table."""
        return f"| {self.name} | {self.machines} | {self.cost} | {self.bottleneck} |"


@dataclass(frozen=True)
class Encoder:
    """Shape of a BERT-like encoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_labels: int = 3


BERT_BASE = Encoder(768, 3072, 12)
BERT_LARGE = Encoder(1024, 4096, 24)

REPLICA = ServiceModel(
    servers=1,
    streams=REPLICA_CPUS - 1,
    max_rows=MAX_ROWS,
    batch_seconds=BATCH_SECONDS,
    row_seconds=1 / ENGINE_ROWS - BATCH_SECONDS / MAX_ROWS,
    gateway_seconds=GATEWAY_SECONDS,
)


@dataclass(frozen=True)
class Fleet:
    """Machines that serve a rate of requests."""

    replicas: int
    machines: int
    p99: float  # milliseconds, simulated at the planned rate of a replica

    @property
    def hourly_cost(self) -> float:
        """US dollars per hour."""
        return self.machines * MACHINE_CPUS * CPU_HOUR


@cache
def replica_rate() -> float:
    """Return the largest rate of a replica, in requests/s."""
    return largest_rate(REPLICA, P99_MS)


@cache
def fleet(rate: float) -> Fleet:
    """Return the machines for a rate of requests. Each machine has CPUs for HAProxy and Ray."""
    replicas = math.ceil(rate / (USE * replica_rate()))
    other_cpus = OTHER_SECONDS * replica_rate()  # per replica
    per_machine = int(MACHINE_CPUS / (REPLICA_CPUS + other_cpus))
    simulated = simulate_arrivals(REPLICA, rate / replicas, _SIMULATED_SECONDS)
    return Fleet(replicas, math.ceil(replicas / per_machine), simulated.p99)


def plans() -> list[Plan]:
    """Return the answers."""
    return [*_headlines(1_000_000_000), _requests(50_000), *_training(100_000_000)]


def _headlines(rows: int) -> list[Plan]:
    mean_rate = rows / _DAY
    cpus = mean_rate / ENGINE_ROWS / USE
    machines = math.ceil(cpus / MACHINE_CPUS)
    cost = machines * MACHINE_CPUS * CPU_HOUR * 24
    served = fleet(PEAK * mean_rate)
    return [
        Plan(
            "1 billion headlines a day, in files (`finsent predict`)",
            f"{machines} with {MACHINE_CPUS} CPUs ({cpus:.0f} CPUs at {USE:.0%} use)",
            f"{_dollars(cost)} a day",
            f"the model: {mean_rate:,.0f} rows/s, {ENGINE_ROWS} rows/s per CPU",
        ),
        Plan(
            f"1 billion headlines a day, one per request, peak {PEAK:g} times the mean",
            _machines(served),
            f"{_dollars(24 * served.hourly_cost)} a day without autoscaling",
            f"the Python thread of a replica; p99 {served.p99:.0f} ms at the peak",
        ),
    ]


def _requests(rate: int) -> Plan:
    served = fleet(rate)
    return Plan(
        f"{rate:,} requests/s of one text",
        _machines(served),
        f"{_dollars(served.hourly_cost)} an hour",
        f"the Python thread of a replica: {1 / GATEWAY_SECONDS:.0f} requests/s at most, "
        f"{replica_rate():.0f} with a p99 below {P99_MS:.0f} ms. As planned: {served.p99:.0f} ms",
    )


def _training(rows: int) -> list[Plan]:
    base, large = (training_flops(e, TOKENS, SQUARED_TOKENS) for e in (BERT_BASE, BERT_LARGE))
    gpu_rate = BERT_BASE_ROWS * base / large
    rate = gpu_rate * GPUS * WORKER_EFFICIENCY
    hours = rows / rate / _HOUR
    gigabytes = rows * TOKENS * TOKEN_BYTES / 1e9
    ingest_minutes = rows / INGEST_ROWS / 60
    return [
        Plan(
            "BERT-large on 100 million rows: ingest",
            "1 with 2 CPUs, 2 GB of memory",
            f"{_dollars(ingest_minutes / 60 * 2 * CPU_HOUR, 2)}",
            f"{ingest_minutes:.0f} minutes of CPU, without near-duplicates",
        ),
        Plan(
            "BERT-large on 100 million rows: training, one epoch",
            f"1 with {GPUS} H100, {GPUS * gigabytes:.0f} GB of memory for tokens",
            f"{_dollars(hours * GPUS * GPU_HOUR)}, {hours:.0f} hours",
            f"the GPUs' loop: {gpu_rate:.0f} rows/s per H100; then memory, because each of the "
            f"{GPUS} workers holds all {gigabytes:.0f} GB of tokens",
        ),
    ]


def _machines(served: Fleet) -> str:
    return f"{served.machines} with {MACHINE_CPUS} CPUs: {served.replicas} replicas"


def _dollars(value: float, digits: int = 0) -> str:
    return f"${value:,.{digits}f}"


def table() -> str:
    """Return all plans as a table in Markdown."""
    head = "| question | machines | cost | bottleneck |\n|---|---|---|---|"
    return "\n".join([head, *(plan.summary for plan in plans())])


def with_table(text: str) -> str:
    """Return the page with a new table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
