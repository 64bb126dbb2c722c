"""The service compared with other servers of the same model, in turn on one machine."""

from __future__ import annotations

import json
import logging
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.servers import Server, ServerDidNotStartError, running, servers
from benchmarks.settings import BenchSettings, benchmark
from finsent.errors import InputError
from finsent.memory import memory_usage, process_tree
from finsent.registry.registry import Registry
from ray_jobs._cli import Result, main, table_console

log = logging.getLogger(__name__)

CONNECTIONS = (1, 16, 64, 256)
LIST_LENGTH = 256  # texts of a request with a list
LIST_CONNECTIONS = 4
_WRK_SCRIPT = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local i = 0
local headers = {["Content-Type"] = "application/json"}
function request()
  i = i %% #bodies + 1
  return wrk.format("POST", "%s", headers, bodies[i])
end
function done(summary, latency)
  io.write(string.format('{"requests": %%d, "micros": %%d, "p50": %%.1f, "p99": %%.1f, ' ..
    '"failed": %%d}\\n', summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), summary.errors.status + summary.errors.timeout +
    summary.errors.connect + summary.errors.read + summary.errors.write))
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk measured."""

    rate: float  # requests/s
    p50: float  # milliseconds
    p99: float  # milliseconds
    failed: int


Loads = dict[int, Load]  # by number of connections


@dataclass
class Measurements:
    """What all rounds measured."""

    loads: dict[str, list[Loads]] = field(default_factory=dict)  # by server, one per round
    list_rates: list[float] = field(default_factory=list)  # texts/s of requests with lists
    engines: list[Any] = field(default_factory=list)
    startup_seconds: list[float] = field(default_factory=list)
    replica_megabytes: list[float] = field(default_factory=list)


# --- the load -----------------------------------------------------------------------------------


def check_wrk(benchmark_name: str) -> None:
    """Check that the load generator is installed.

    Raises:
        InputError: wrk is missing.
    """
    if shutil.which("wrk") is None:
        raise InputError(
            f"benchmarks.{benchmark_name}: wrk is not installed. Run `apt-get install wrk`."
        )


def load(
    address: str, bodies: Path, connections: int, seconds: int, work: Path, path: str = "/predict"
) -> Load:
    """Load a server by wrk. Each connection waits for an answer before its next request.

    Args:
        address: of the server.
        bodies: one JSON body per line.
        connections: number of connections.
        seconds: duration.
        work: gets the script of wrk.
        path: of the requests.
    """
    script = work / f"{bodies.stem}.lua"
    script.write_text(_WRK_SCRIPT % (bodies, path))
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
    process = subprocess.run(["wrk", *options, address], capture_output=True, text=True, check=True)
    counts = json.loads(process.stdout.splitlines()[-1])
    rate = (counts["requests"] - counts["failed"]) / (counts["micros"] / 1e6)
    return Load(rate, counts["p50"] / 1000, counts["p99"] / 1000, counts["failed"])


def write_bodies(texts: list[str], work: Path) -> tuple[Path, Path]:
    """Write request bodies, one per line: of single texts, and of lists of `LIST_LENGTH` texts.

    infinity.txt next to them has the single texts in infinity's form.

    Returns:
        the file of single texts and the file of lists.
    """
    single, lists = work / "single.txt", work / "lists.txt"
    single.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    infinity = (json.dumps({"model": "bench", "input": [text]}) for text in texts)
    (work / "infinity.txt").write_text("\n".join(infinity))
    parts = [texts[i : i + LIST_LENGTH] for i in range(0, len(texts), LIST_LENGTH)]
    complete = [list_of_texts for list_of_texts in parts if len(list_of_texts) == LIST_LENGTH]
    complete = complete or [(texts * LIST_LENGTH)[:LIST_LENGTH]]
    lists.write_text("\n".join(json.dumps({"texts": list_of_texts}) for list_of_texts in complete))
    return single, lists


def distinct_texts(settings: BenchSettings) -> list[str]:
    """Return the distinct texts of the sources in random order."""
    from finsent.data.sources.files import find_texts

    files = find_texts(
        settings.data.sources, settings.data, settings.workspace.sources_dir, "data.sources"
    )
    distinct = {
        text
        for file in files
        for table in file.rows(0)
        for text in table["raw_text"].to_pylist()
        if text and text.strip()
    }
    texts = sorted(distinct)
    random.Random(0).shuffle(texts)
    return texts


_ENGINE_PROGRAM = """
import json, sys, time
from pathlib import Path
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from benchmarks.peers.predecessor import answer, load
model_dir, fp32, texts = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
engine = Engine(model_dir, EngineConfig(**json.loads(sys.argv[4])))
engine.warm_up()
engine.classify(texts)
start = time.perf_counter()
engine.classify(texts)
engine_rate = len(texts) / (time.perf_counter() - start)
session, tokenizer = load(fp32, str(model_dir / "tokenizer.json"), None)
sample = texts[:300]
answer(session, tokenizer, sample[:1])
start = time.perf_counter()
for text in sample:
    answer(session, tokenizer, [text])
single_rate = len(sample) / (time.perf_counter() - start)
print(json.dumps({"engine": engine_rate, "single": single_rate, "backend": engine.backend.name}))
"""


def engine_rates(settings: BenchSettings, model_dir: Path, texts: list[str], work: Path) -> Any:
    """Return rows/s of the engine alone, and of ONNX Runtime in fp32 with one text at a time."""
    (work / "texts.json").write_text(json.dumps(texts))
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            _ENGINE_PROGRAM,
            str(model_dir),
            str(work / "fp32.onnx"),
            str(work / "texts.json"),
            settings.engine.model_dump_json(),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


# --- the benchmark ------------------------------------------------------------------------------


def bench_serve(settings: BenchSettings) -> Result:
    """Measure all servers in turn, and compare medians of the rounds."""
    check_wrk("serve")
    model_dir = Registry(settings.workspace.registry).get(settings.serve.model).path
    texts = distinct_texts(settings)
    rounds = settings.bench.rounds
    results = Measurements()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_bodies(texts, work)
        remaining = servers(settings, model_dir, work)
        for number in range(1, rounds + 1):
            results.engines.append(engine_rates(settings, model_dir, texts, work))
            for server in [*remaining]:
                log.info("round %d of %d: %s", number, rounds, server.name)
                try:
                    measure(server, settings.bench.seconds, work, results)
                except ServerDidNotStartError as error:
                    if not server.is_peer:
                        raise
                    # The packages of a peer may contradict each other.
                    log.warning("%s. The peer is skipped.", error)
                    remaining.remove(server)
    _print_table(results.loads)
    return _ratios(results) | {
        "startup_seconds": statistics.median(results.startup_seconds),
        "replica_megabytes": statistics.median(results.replica_megabytes),
        "texts": len(texts),
        "rounds": rounds,
    }


def measure(server: Server, seconds: int, work: Path, results: Measurements) -> None:
    """Start a server, load it, and add what was measured to the results."""
    with running(server, work) as (address, process):
        loads = _loads(server, address, seconds, work)
        results.loads.setdefault(server.name, []).append(loads)
        if server.name == "finsent":
            lists = load(address, work / "lists.txt", LIST_CONNECTIONS, seconds, work)
            results.list_rates.append(lists.rate * LIST_LENGTH)
            results.startup_seconds.append(_logged_startup(work))
            results.replica_megabytes.append(_replica_bytes(process.pid) / 1e6)


def _loads(server: Server, address: str, seconds: int, work: Path) -> Loads:
    """Measure single texts over each number of connections, after a warm-up."""
    bodies = work / f"{server.bodies}.txt"
    load(address, bodies, 16, max(2, seconds // 4), work, server.path)
    return {
        connections: load(address, bodies, connections, seconds, work, server.path)
        for connections in CONNECTIONS
    }


def _logged_startup(work: Path) -> float:
    """Return the seconds from a running Ray to the first answer, as the job logs them."""
    lines = (work / "server.log").read_text().splitlines()
    line = next(line for line in lines if " after " in line)
    return float(line.rpartition(" after ")[2].split()[0])


def _replica_bytes(root: int) -> float:
    """Return the resident memory of the service's replica, below a root process."""
    for pid in process_tree(root):
        try:
            title = (Path("/proc") / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue
        if b"ServeReplica" in title:
            return float(memory_usage([pid]).rss)
    return float("nan")


def _median(rounds: list[Loads], connections: int, field_name: str) -> float:
    return float(statistics.median(getattr(loads[connections], field_name) for loads in rounds))


def _ratios(results: Measurements) -> Result:
    """Return the ratios, null where a server was not measured, and the medians of all servers."""
    loads = results.loads

    def median(name: str, connections: int, field_name: str) -> float | None:
        return _median(loads[name], connections, field_name) if name in loads else None

    def over(numerator: float | None, denominator: float | None) -> float | None:
        return None if numerator is None or not denominator else round(numerator / denominator, 3)

    peer_rates = [_median(loads[name], 64, "rate") for name in loads if name.endswith("int8")]
    peers = [name for name in loads if name not in ("finsent", "uvicorn")]
    peer_p99s = [_median(loads[name], 64, "p99") for name in peers]
    rate, p99 = median("finsent", 64, "rate"), median("finsent", 64, "p99")
    engine = statistics.median(rates["engine"] for rates in results.engines)
    onnx = statistics.median(rates["single"] for rates in results.engines)
    return {
        "rps64_over_predecessor": over(rate, median("predecessor fp32", 64, "rate")),
        "rps64_over_best_peer": over(rate, max(peer_rates, default=None)),
        "p99_64_over_predecessor": over(p99, median("predecessor fp32", 64, "p99")),
        "p99_64_over_best_peer": over(p99, min(peer_p99s, default=None)),
        "p50_1_over_predecessor_int8": over(
            median("finsent", 1, "p50"), median("predecessor int8", 1, "p50")
        ),
        "serve_over_uvicorn": over(rate, median("uvicorn", 64, "rate")),
        "bulk_over_engine": over(statistics.median(results.list_rates), engine),
        "engine_over_onnx_fp32_single": over(engine, onnx),
        "engine_rows_per_second": round(engine, 1),
        "backend": results.engines[0]["backend"],
        "servers": {name: _server_medians(rounds) for name, rounds in loads.items()},
    }


def _server_medians(rounds: list[Loads]) -> Result:
    """Return medians of a server by number of connections."""
    return {
        str(connections): {
            "requests_per_second": round(_median(rounds, connections, "rate"), 1),
            "p50_ms": round(_median(rounds, connections, "p50"), 1),
            "p99_ms": round(_median(rounds, connections, "p99"), 1),
            "failed": sum(loads[connections].failed for loads in rounds),
        }
        for connections in CONNECTIONS
    }


def _print_table(loads: dict[str, list[Loads]]) -> None:
    table = Table("requests/s (p50, p99 ms)", *(f"{n} connections" for n in CONNECTIONS))
    for name, rounds in loads.items():
        cells = []
        for connections in CONNECTIONS:
            rate, p50, p99 = (
                _median(rounds, connections, field_name) for field_name in ("rate", "p50", "p99")
            )
            cells.append(f"{rate:.0f} ({p50:.0f}, {p99:.0f})")
        table.add_row(name, *cells)
    table_console().print(table)


JOB = benchmark(
    "serve",
    bench_serve,
    summary="Measure requests/s and latency of the published serve.model under Ray Serve, under "
    "plain uvicorn, and in other servers (the predecessor's shape, LitServe, BentoML, infinity), "
    "by wrk at 1, 16, 64 and 256 connections; also lists, the engine alone, start-up and memory.",
    result="rps64_over_predecessor, rps64_over_best_peer, p99_64_over_predecessor, "
    "p99_64_over_best_peer, p50_1_over_predecessor_int8, serve_over_uvicorn, bulk_over_engine, "
    "engine_over_onnx_fp32_single, startup_seconds, replica_megabytes, servers",
    sections=("data", "serve", "engine", "registry", "ray"),
)

if __name__ == "__main__":
    main(JOB)
