"""The simulation of `benchmarks.scaling_simulation` compared with 1 to 3 real replicas.

The engines of the replicas only wait, because two cores cannot show three replicas that compute.
Everything else is real: wrk, HAProxy, a gateway, Ray Serve's calls and its choice of a replica.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from benchmarks import stub_service
from benchmarks.scaling_plans import plans
from benchmarks.scaling_simulation import ServiceModel, Simulated, simulate_connections
from benchmarks.serve import Load, check_wrk, load
from benchmarks.servers import Server, own_overrides, running
from benchmarks.settings import BenchSettings, benchmark
from benchmarks.topologies import cpu_seconds
from finsent.metric_list import STAGE_SECONDS
from ray_jobs._cli import Result, main, table_console

log = logging.getLogger(__name__)

BATCH_SECONDS, MAX_ROWS = 0.1, 8  # of the stub engine
REPLICAS = (1, 2, 3)
CONNECTIONS = (8, 32, 96)
SEEDS = range(9)  # of simulations, whose median counts
_BODY = '{"text": "Profit rose."}'


@dataclass(frozen=True)
class Case:
    """A number of replicas under a load."""

    replicas: int
    connections: int


@dataclass(frozen=True)
class Times:
    """What the simulation is given, in seconds, measured at one replica."""

    gateway: float  # CPU time of a gateway, per request
    call: float  # of a micro-batch to a replica and back
    network: float  # between client and gateway, per request


def bench_scaling(settings: BenchSettings) -> Result:
    """Measure and simulate all cases, and print the plans."""
    check_wrk("scaling")
    loads: dict[Case, list[Load]] = {}
    times: list[Times] = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        (work / "single.txt").write_text(_BODY)
        for replicas in REPLICAS:
            for case, measured, case_times in _measure(settings, replicas, work):
                loads.setdefault(case, []).append(measured)
                if replicas == 1:
                    times.append(case_times)
    measured_times = Times(
        statistics.median(each.gateway for each in times),
        statistics.median(each.call for each in times),
        statistics.median(each.network for each in times),
    )
    simulated = {
        case: [simulate(case, measured_times, settings.bench.seconds, seed) for seed in SEEDS]
        for case in loads
    }
    medians = {case: statistics.median(each.rate for each in loads[case]) for case in loads}
    _print_table(loads, simulated)
    errors = {
        case: statistics.median(each.rate for each in simulated[case]) / medians[case] - 1
        for case in loads
    }
    return {
        "largest_error": round(max(map(abs, errors.values())), 3),
        "errors": {_name(case): round(error, 3) for case, error in errors.items()},
        "requests_per_second": {_name(case): round(rate, 1) for case, rate in medians.items()},
        "gateway_ms": round(1000 * measured_times.gateway, 3),
        "call_ms": round(1000 * measured_times.call, 3),
        "network_ms": round(1000 * measured_times.network, 3),
        "failed": sum(each.failed for rounds in loads.values() for each in rounds),
        "plans": {plan.name: plan.summary for plan in plans()},
    }


def simulate(case: Case, times: Times, seconds: float, seed: int) -> Simulated:
    """Simulate a case: one gateway before the replicas."""
    model = ServiceModel(
        servers=1,
        streams=case.replicas,
        max_rows=MAX_ROWS,
        batch_seconds=BATCH_SECONDS,
        row_seconds=0.0,
        gateway_seconds=times.gateway,
        call_seconds=times.call,
        network_seconds=times.network,
    )
    return simulate_connections(model, case.connections, seconds, seed)


def _server(settings: BenchSettings, replicas: int) -> Server:
    changes = [
        "serve.topology=split",
        f"serve.min_replicas={replicas}",
        f"serve.max_replicas={replicas}",
        "serve.gateways.max_replicas=1",
        "engine.threads=1",
    ]
    environment = {
        stub_service.BATCH_SECONDS: str(BATCH_SECONDS),
        stub_service.MAX_ROWS: str(MAX_ROWS),
    }
    command = [sys.executable, "-m", "benchmarks.stub_service", *own_overrides(settings), *changes]
    return Server(f"{replicas} replicas", command, environment)


def _measure(
    settings: BenchSettings, replicas: int, work: Path
) -> Iterator[tuple[Case, Load, Times]]:
    """Start a service, and yield the loads of all cases in each round, with the times of parts."""
    bodies, seconds = work / "single.txt", settings.bench.seconds
    with running(_server(settings, replicas), work) as (address, process):
        alone = load(address, bodies, 1, max(2, seconds // 2), work)
        call_seconds = _mean_wait(address)
        for number in range(1, settings.bench.rounds + 1):
            for connections in CONNECTIONS:
                load(address, bodies, connections, 1, work)  # until the queue is steady
                before = cpu_seconds(process.pid)["gateway"]
                measured = load(address, bodies, connections, seconds, work)
                requests = max(1.0, measured.rate * seconds)
                gateway_seconds = (cpu_seconds(process.pid)["gateway"] - before) / requests
                case = Case(replicas, connections)
                log.info("round %d: %s: %.1f requests/s", number, _name(case), measured.rate)
                network_seconds = alone.p50 / 1000 - BATCH_SECONDS - call_seconds - gateway_seconds
                yield case, measured, Times(gateway_seconds, call_seconds, max(0, network_seconds))


def _mean_wait(address: str) -> float:
    """Return the mean seconds that a text waited for its replica, from the service's metrics."""
    values = {
        sample.name.removeprefix(STAGE_SECONDS.series): sample.value
        for family in text_string_to_metric_families(httpx.get(f"{address}/metrics").text)
        for sample in family.samples
        if sample.name.startswith(STAGE_SECONDS.series) and sample.labels.get("stage") == "queue"
    }
    return values["_sum"] / max(values["_count"], 1)


def _name(case: Case) -> str:
    return f"{case.replicas} replicas, {case.connections} connections"


def _print_table(loads: dict[Case, list[Load]], simulated: dict[Case, list[Simulated]]) -> None:
    table = Table("replicas", "connections", "requests/s", "simulated", "p50 ms", "simulated")
    for case, rounds in loads.items():
        table.add_row(
            str(case.replicas),
            str(case.connections),
            f"{statistics.median(each.rate for each in rounds):.1f}",
            f"{statistics.median(each.rate for each in simulated[case]):.1f}",
            f"{statistics.median(each.p50 for each in rounds):.0f}",
            f"{statistics.median(each.p50 for each in simulated[case]):.0f}",
        )
    table_console().print(table)


JOB = benchmark(
    "scaling",
    bench_scaling,
    summary="Compare a simulation of the service with 1 to 3 real replicas whose engines take "
    "0.1 s per micro-batch, at 8, 32 and 96 connections of wrk, medians of the rounds, and print "
    "the plans of cluster/SCALING.md. serve.model must be published.",
    result="largest_error, errors, requests_per_second, gateway_ms, call_ms, network_ms, failed, "
    "plans",
    sections=("data", "serve", "engine", "registry", "ray"),
)

if __name__ == "__main__":
    main(JOB)
