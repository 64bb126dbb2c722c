"""The topologies of the service compared: `split` with `fused`, and two gateways with one."""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.table import Table

from benchmarks.serve import check_wrk, distinct_texts, load, write_bodies
from benchmarks.servers import Server, own_overrides, running
from benchmarks.settings import BenchSettings, benchmark
from finsent.memory import process_tree
from ray_jobs._cli import Result, main, table_console

log = logging.getLogger(__name__)

CONNECTIONS = 64  # per gateway: with fewer, the micro-batches of two gateways would be smaller
_ROLES = {"Gateway": "gateway", "Classifier": "classifier", "haproxy": "haproxy"}


@dataclass(frozen=True)
class Variant:
    """A server and its load."""

    server: Server
    connections: int


@dataclass(frozen=True)
class Round:
    """What one load of a server measured."""

    rate: float  # requests/s
    p50: float  # milliseconds
    p99: float  # milliseconds
    failed: int
    milliseconds: dict[str, float]  # CPU time per request, by role of the process
    busy_share: float  # of all cores of the machine, including other programs


Rounds = dict[str, list[Round]]  # by server


def variants(settings: BenchSettings) -> list[Variant]:
    """Return the variants of the service."""
    overrides = own_overrides(settings)

    def variant(name: str, module: str, gateways: int, topology: str = "split") -> Variant:
        changes = [
            f"serve.topology={topology}",
            f"serve.gateways.min_replicas={gateways}",
            f"serve.gateways.max_replicas={gateways}",
        ]
        server = Server(name, [sys.executable, "-m", module, *overrides, *changes])
        return Variant(server, CONNECTIONS * gateways)

    return [
        variant("fused", "ray_jobs.serve", 1, "fused"),
        variant("split", "ray_jobs.serve", 1),
        variant("stub, 1 gateway", "benchmarks.stub_service", 1),
        variant("stub, 2 gateways", "benchmarks.stub_service", 2),
    ]


def bench_topologies(settings: BenchSettings) -> Result:
    """Measure all variants in turn, and compare medians of the rounds."""
    check_wrk("topologies")
    rounds: Rounds = {}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        write_bodies(distinct_texts(settings), work)
        for number in range(1, settings.bench.rounds + 1):
            for variant in variants(settings):
                name = variant.server.name
                log.info("round %d of %d: %s", number, settings.bench.rounds, name)
                measured = _measure(variant, settings.bench.seconds, work)
                rounds.setdefault(name, []).append(measured)
                cpu = {role: round(value, 2) for role, value in measured.milliseconds.items()}
                log.info("%.0f requests/s, CPU ms per request %s", measured.rate, cpu)
    _print_table(rounds)
    return ratios(rounds) | {"rounds": settings.bench.rounds}


def _measure(variant: Variant, seconds: int, work: Path) -> Round:
    """Load a server after a warm-up, and count the CPU time of its processes."""
    bodies = work / "single.txt"
    with running(variant.server, work) as (address, process):
        load(address, bodies, 16, max(2, seconds // 4), work)
        before, times_before = cpu_seconds(process.pid), psutil.cpu_times()
        loaded = load(address, bodies, variant.connections, seconds, work)
        used, times = cpu_seconds(process.pid), psutil.cpu_times()
    requests = max(1.0, loaded.rate * seconds)
    total = sum(times) - sum(times_before)
    idle = times.idle + times.iowait - times_before.idle - times_before.iowait
    return Round(
        loaded.rate,
        loaded.p50,
        loaded.p99,
        loaded.failed,
        {role: 1000 * (used[role] - before.get(role, 0.0)) / requests for role in sorted(used)},
        1 - idle / total,
    )


def cpu_seconds(root: int) -> dict[str, float]:
    """Return the CPU seconds of a server's processes by role; other roles are Ray's."""
    seconds: dict[str, float] = defaultdict(float)
    for pid in process_tree(root):
        try:
            process = psutil.Process(pid)
            title, used = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        role = next((role for word, role in _ROLES.items() if word in title), "ray")
        seconds[role] += used.user + used.system
    return seconds


def ratios(rounds: Rounds) -> Result:
    """Return the ratios of the medians, and the medians of all variants."""

    def rate(name: str) -> float:
        return statistics.median(measured.rate for measured in rounds[name])

    def gateway_ms(name: str) -> float:
        return statistics.median(
            measured.milliseconds.get("gateway", 0.0) for measured in rounds[name]
        )

    one_gateway, two_gateways = "stub, 1 gateway", "stub, 2 gateways"
    return {
        "split_over_fused": round(rate("split") / rate("fused"), 3),
        "two_gateways_over_one": round(rate(two_gateways) / rate(one_gateway), 3),
        # The factor by which a second gateway raises requests/s where cores are free: one core per
        # gateway limits the requests/s to 1 / (CPU time of a request in the gateway).
        "two_gateways_over_one_per_core": round(
            2 * gateway_ms(one_gateway) / gateway_ms(two_gateways), 3
        ),
        "variants": {name: _medians(rounds[name]) for name in rounds},
    }


def _medians(rounds: list[Round]) -> Result:
    roles = sorted({role for measured in rounds for role in measured.milliseconds})
    return {
        "requests_per_second": round(statistics.median(measured.rate for measured in rounds), 1),
        "p50_ms": round(statistics.median(measured.p50 for measured in rounds), 1),
        "p99_ms": round(statistics.median(measured.p99 for measured in rounds), 1),
        "failed": sum(measured.failed for measured in rounds),
        "cpu_ms_per_request": {
            role: round(
                statistics.median(measured.milliseconds.get(role, 0) for measured in rounds), 3
            )
            for role in roles
        },
        "busy_share": round(statistics.median(measured.busy_share for measured in rounds), 3),
    }


def _print_table(rounds: Rounds) -> None:
    table = Table("variant", "requests/s", "p50, p99 ms", "CPU ms per request", "busy")
    for name in rounds:
        row = _medians(rounds[name])
        cpu = ", ".join(f"{role} {value}" for role, value in row["cpu_ms_per_request"].items())
        latency = f"{row['p50_ms']}, {row['p99_ms']}"
        table.add_row(name, str(row["requests_per_second"]), latency, cpu, str(row["busy_share"]))
    table_console().print(table)


JOB = benchmark(
    "topologies",
    bench_topologies,
    summary="Measure requests/s of the published serve.model in the topologies fused and split, "
    "and of one and two gateways before a classifier whose engine takes 0.2 ms per micro-batch, "
    "by wrk at 64 connections per gateway, with the CPU time of each process.",
    result="split_over_fused, two_gateways_over_one, two_gateways_over_one_per_core, variants",
    sections=("data", "serve", "engine", "registry", "ray"),
)

if __name__ == "__main__":
    main(JOB)
