"""The service against other servers of the same model, one after the other on one machine."""

from __future__ import annotations

import json
import logging
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.servers import DoesNotAnswer, Server, running, servers
from benchmarks.settings import BenchSettings, benchmark
from finsent.errors import InputError
from finsent.memory import memory_usage, process_tree
from finsent.registry.registry import Registry
from ray_jobs._cli import Result, main, table_console

log = logging.getLogger(__name__)

CONNECTIONS = (1, 16, 64, 256)
BULK = 256  # texts of a list
_BULK_CONNECTIONS = 4
_LUA = """
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
    p50: float  # ms
    p99: float
    failed: int


# --- the load -----------------------------------------------------------------------------------


def load(
    address: str, bodies: Path, connections: int, seconds: int, work: Path, path: str = "/predict"
) -> Load:
    """Ask for some seconds over connections that each wait for an answer before they ask again."""
    script = work / f"{bodies.stem}.lua"
    script.write_text(_LUA % (bodies, path))
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "30s",
            "-s",
            str(script),
            address,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    rate = (found["requests"] - found["failed"]) / (found["micros"] / 1e6)
    return Load(rate, found["p50"] / 1000, found["p99"] / 1000, found["failed"])


def write_bodies(texts: list[str], work: Path) -> tuple[Path, Path]:
    """Bodies of single texts and of lists, one a line; beside them infinity's of single texts."""
    single, bulk = work / "single.txt", work / "bulk.txt"
    single.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    theirs = (json.dumps({"model": "bench", "input": [text]}) for text in texts)
    (work / "infinity.txt").write_text("\n".join(theirs))
    lists = [texts[i : i + BULK] for i in range(0, len(texts), BULK)]
    lists = [one for one in lists if len(one) == BULK] or [(texts * BULK)[:BULK]]
    bulk.write_text("\n".join(json.dumps({"texts": one}) for one in lists))
    return single, bulk


def distinct_texts(settings: BenchSettings) -> list[str]:
    """The sources' texts in random order, each once."""
    from finsent.data.sources.files import find_texts

    files = find_texts(
        settings.data.sources, settings.data, settings.workspace.sources_dir, "data.sources"
    )
    found = {
        text
        for file in files
        for table in file.rows(0)
        for text in table["raw_text"].to_pylist()
        if text and text.strip()
    }
    texts = sorted(found)
    random.Random(0).shuffle(texts)
    return texts


_ENGINE = """
import json, sys, time
from pathlib import Path
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from benchmarks.peers.predecessor import answer, load
model_dir, fp32, texts = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
engine = Engine(model_dir, EngineConfig(**json.loads(sys.argv[4])))
engine.warm_up()
engine.classify(texts)
started = time.perf_counter()
engine.classify(texts)
ours = len(texts) / (time.perf_counter() - started)
session, tokenizer = load(fp32, str(model_dir / "tokenizer.json"), None)
some = texts[:300]
answer(session, tokenizer, some[:1])
started = time.perf_counter()
for text in some:
    answer(session, tokenizer, [text])
single = len(some) / (time.perf_counter() - started)
print(json.dumps({"engine": ours, "single": single, "backend": engine.backend.name}))
"""


def engine_rates(settings: BenchSettings, model_dir: Path, texts: list[str], work: Path) -> Any:
    """Rows/s of the engine alone, and of ONNX Runtime in fp32 one text at a time."""
    (work / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _ENGINE,
            str(model_dir),
            str(work / "fp32.onnx"),
            str(work / "texts.json"),
            settings.engine.model_dump_json(),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


# --- the bench ----------------------------------------------------------------------------------


def bench_serve(settings: BenchSettings) -> Result:
    """Measure all servers in turn, and compare medians of the rounds."""
    if shutil.which("wrk") is None:
        raise InputError("benchmarks.serve: wrk is not there; apt-get install wrk")
    model_dir = Registry(settings.workspace.registry_dir).get(settings.serve.model).path
    texts = distinct_texts(settings)
    rounds, seconds = settings.bench.rounds, settings.bench.seconds
    single: dict[str, dict[int, list[Load]]] = {}
    bulk: list[float] = []
    engines: list[Any] = []
    startup: list[float] = []
    megabytes: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _, many = write_bodies(texts, work)
        candidates = servers(settings, model_dir, work)
        for number in range(rounds):
            engines.append(engine_rates(settings, model_dir, texts, work))
            for server in [*candidates]:
                log.info("round %d of %d: %s", number + 1, rounds, server.name)
                try:
                    with running(server, work) as (address, process, _):
                        found = _loads(server, address, seconds, work)
                        if server.name == "finsent":
                            lists = load(address, many, _BULK_CONNECTIONS, seconds, work)
                            bulk.append(lists.rate * BULK)
                            startup.append(_startup(work))
                            megabytes.append(_replica_bytes(process.pid) / 1e6)
                except DoesNotAnswer as error:
                    if not server.peer:
                        raise
                    # Packages of a peer that do not go together are no reason to measure nothing.
                    log.warning("%s; it is skipped", error)
                    candidates.remove(server)
                    continue
                by_connections = single.setdefault(server.name, {})
                for connections, one in found.items():
                    by_connections.setdefault(connections, []).append(one)
    _show(single)
    return _ratios(single, bulk, engines) | {
        "startup_seconds": statistics.median(startup),
        "replica_megabytes": statistics.median(megabytes),
        "texts": len(texts),
        "rounds": rounds,
    }


def _loads(server: Server, address: str, seconds: int, work: Path) -> dict[int, Load]:
    """Single texts over each number of connections, when it is warm."""
    bodies = work / f"{server.single}.txt"
    load(address, bodies, 16, max(2, seconds // 4), work, server.path)
    return {n: load(address, bodies, n, seconds, work, server.path) for n in CONNECTIONS}


def _startup(work: Path) -> float:
    """From Ray being up to the first answer, as the job says it."""
    line = next(
        line for line in (work / "server.log").read_text().splitlines() if " after " in line
    )
    return float(line.rpartition(" after ")[2].split()[0])


def _replica_bytes(root: int) -> float:
    """Resident memory of the service's replica."""
    for pid in process_tree(root):
        try:
            title = (Path("/proc") / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue
        if b"ServeReplica" in title:
            return float(memory_usage([pid]).rss)
    return float("nan")


def _ratios(
    single: dict[str, dict[int, list[Load]]], bulk: list[float], engines: list[Any]
) -> Result:
    def median(name: str, connections: int, field: str) -> float | None:
        if name not in single:
            return None
        return float(statistics.median(getattr(o, field) for o in single[name][connections]))

    def over(a: float | None, b: float | None) -> float | None:
        return None if a is None or not b else round(a / b, 3)

    peers = [name for name in single if name.endswith("int8")]
    rates = [r for name in peers if (r := median(name, 64, "rate")) is not None]
    tails = [
        p
        for name in single
        if name not in ("finsent", "uvicorn")
        if (p := median(name, 64, "p99")) is not None
    ]
    ours = {field: median("finsent", 64, field) for field in ("rate", "p99")}
    engine = statistics.median(one["engine"] for one in engines)
    return {
        "rps64_over_predecessor": over(ours["rate"], median("predecessor fp32", 64, "rate")),
        "rps64_over_best_peer": over(ours["rate"], max(rates, default=None)),
        "p99_64_over_predecessor": over(ours["p99"], median("predecessor fp32", 64, "p99")),
        "p99_64_over_best_peer": over(ours["p99"], min(tails, default=None)),
        "p50_1_over_predecessor_int8": over(
            median("finsent", 1, "p50"), median("predecessor int8", 1, "p50")
        ),
        "serve_over_uvicorn": over(ours["rate"], median("uvicorn", 64, "rate")),
        "bulk_over_engine": over(statistics.median(bulk), engine),
        "engine_over_onnx_fp32_single": over(
            engine, statistics.median(one["single"] for one in engines)
        ),
        "engine_rows_per_second": round(engine, 1),
        "backend": engines[0]["backend"],
        "servers": {
            name: {
                str(connections): {
                    "requests_per_second": round(statistics.median(o.rate for o in all_), 1),
                    "p50_ms": round(statistics.median(o.p50 for o in all_), 1),
                    "p99_ms": round(statistics.median(o.p99 for o in all_), 1),
                    "failed": sum(o.failed for o in all_),
                }
                for connections, all_ in by_connections.items()
            }
            for name, by_connections in single.items()
        },
    }


def _show(single: dict[str, dict[int, list[Load]]]) -> None:
    table = Table("requests/s (p50, p99 ms)", *(f"{n} connections" for n in CONNECTIONS))
    for name, by_connections in single.items():
        cells = []
        for connections in CONNECTIONS:
            found = by_connections[connections]
            rate, p50, p99 = (
                statistics.median(getattr(one, field) for one in found)
                for field in ("rate", "p50", "p99")
            )
            cells.append(f"{rate:.0f} ({p50:.0f}, {p99:.0f})")
        table.add_row(name, *cells)
    table_console().print(table)


JOB = benchmark(
    "serve",
    bench_serve,
    summary="Requests/s and latency of the published serve.model under Ray Serve, under plain "
    "uvicorn, and in other servers (the predecessor's shape, LitServe, BentoML, infinity), by wrk "
    "at 1, 16, 64 and 256 connections; lists, the engine alone, start-up and memory.",
    result="rps64_over_predecessor, rps64_over_best_peer, p99_64_over_predecessor, "
    "p99_64_over_best_peer, p50_1_over_predecessor_int8, serve_over_uvicorn, bulk_over_engine, "
    "engine_over_onnx_fp32_single, startup_seconds, replica_megabytes, servers",
    sections=("data", "serve", "engine", "registry", "ray"),
)

if __name__ == "__main__":
    main(JOB)
