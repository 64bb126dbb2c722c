"""Ingest of synthetic rows: rows/s and peak memory, beside pandas and Polars."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.dataframes import PEERS
from benchmarks.settings import BenchSettings, benchmark
from benchmarks.synthetic import expected, write_rows
from finsent.config import load
from finsent.data.ingest.ingest import ingest
from finsent.data.sources.files import find_sources
from finsent.errors import InputError
from finsent.files import make_dir
from finsent.memory import MemorySampler
from finsent.ray_session import ray_session
from ray_jobs._cli import main

log = logging.getLogger(__name__)

ROWS = 1_000_000
_ROWS_PER_FILE = 1_000_000
_SEED = 1


def bench_ingest(settings: BenchSettings) -> dict[str, Any]:
    """Generate rows, ingest them, and the peers' part of them with every contestant in turn.

    Raises:
        InputError: a peer is not installed, or Ray is not of this machine alone.
        RuntimeError: a peer, or the generator, counts other rows than finsent.
    """
    for peer in PEERS:
        if importlib.util.find_spec(peer) is None:
            raise InputError(f"benchmarks.ingest compares with {peer}; pip install 'finsent[dev]'")
    if settings.ray.address or os.environ.get("RAY_ADDRESS"):
        raise InputError(
            "benchmarks.ingest measures the memory of this machine's processes, so it starts a Ray "
            "of its own; set ray.address=null and unset RAY_ADDRESS"
        )
    rows = settings.bench.rows or ROWS
    peer_rows = min(settings.bench.peer_rows, rows)
    place = make_dir(settings.workspace.root / "bench", "storage.root")
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        log.info("generating %d rows", rows)
        generated = _generate(folder / "rows", rows)
        small = _generate(folder / "small", max(rows // 10, 1))
        shared = generated if peer_rows == rows else _generate(folder / "peers", peer_rows)
        tenth = _finsent(settings, small, folder / "out")
        whole = _finsent(settings, generated, folder / "out")
        log.info(
            "%d rows: %.0f rows/s, peak %.2f GB; a tenth of them: peak %.2f GB",
            rows,
            whole["rows_per_second"],
            whole["peak_rss_bytes"] / 1e9,
            tenth["peak_rss_bytes"] / 1e9,
        )
        rounds = _rounds(settings, shared, folder)
        near_tenth = _finsent(settings, small, folder / "out", near=True)
        near = _finsent(settings, generated, folder / "out", near=True)
    wanted = expected(rows, _SEED)
    if whole["counts"]["kept"] != wanted.kept or whole["counts"]["conflicts"] != wanted.conflicts:
        raise RuntimeError(f"counts {whole['counts']} are not those of the generator: {wanted}")
    medians = {
        name: statistics.median(r["rows_per_second"] for r in found)
        for name, found in rounds.items()
    }
    return {
        "rows_per_second": whole["rows_per_second"],
        "rows_per_second_with_start": whole["rows_per_second_with_start"],
        "peak_rss_bytes": whole["peak_rss_bytes"],
        "peak_rss_sum_bytes": whole["peak_rss_sum_bytes"],
        "memory_growth": whole["peak_rss_bytes"] / tenth["peak_rss_bytes"],
        **{f"over_{name}": medians["finsent"] / medians[name] for name in PEERS},
        "near_rows_per_second": near["rows_per_second"],
        "near_peak_rss_bytes": near["peak_rss_bytes"],
        "near_memory_growth": near["peak_rss_bytes"] / near_tenth["peak_rss_bytes"],
        "rows": rows,
        "peer_rows": peer_rows,
        "counts": whole["counts"],
        "medians": medians,
        "rounds": rounds,
        "near": near,
        "tenth": tenth,
        "near_tenth": near_tenth,
    }


def _generate(folder: Path, rows: int) -> Path:
    write_rows(folder, rows, files=max(2, -(-rows // _ROWS_PER_FILE)), seed=_SEED)
    return folder


def _finsent(
    settings: BenchSettings, folder: Path, out: Path, near: bool = False
) -> dict[str, Any]:
    """One ingest as a user runs it, on a Ray of its own; exact work only unless `near`."""
    config = load(
        BenchSettings,
        [],
        [
            f"data.sources=['{folder}']",
            "data.label_noise.enabled=false",
            f"data.near_duplicates.enabled={str(near).lower()}",
        ],
    ).data
    with tempfile.TemporaryDirectory(dir=out.parent) as name, MemorySampler() as memory:
        before = time.perf_counter()
        with ray_session(settings):
            started = time.perf_counter()
            version = ingest(config, Path(name), find_sources(config, Path(name) / "hubs"))
            ended = time.perf_counter()
        counts = version.manifest.counts
    return {
        "rows_per_second": counts.rows_in / (ended - started),
        "rows_per_second_with_start": counts.rows_in / (ended - before),
        "seconds": ended - started,
        "peak_rss_bytes": memory.peak_pss,
        "peak_rss_sum_bytes": memory.peak_rss,
        "counts": counts.model_dump(),
    }


def _rounds(settings: BenchSettings, folder: Path, work: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"finsent": [], **{name: [] for name in PEERS}}
    for number in range(settings.bench.rounds):
        found["finsent"].append(_finsent(settings, folder, work / "out"))
        counts = found["finsent"][-1]["counts"]
        for name in PEERS:
            found[name].append(_peer(name, folder, work, counts))
        log.info(
            "round %d of %d: %s rows/s",
            number + 1,
            settings.bench.rounds,
            ", ".join(f"{n} {f[-1]['rows_per_second']:.0f}" for n, f in found.items()),
        )
    return found


def _peer(name: str, folder: Path, work: Path, counts: dict[str, int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=work) as out:
        command = [sys.executable, "-m", "benchmarks.peers.dataframes", name, str(folder), out]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    differ = {
        fate: (rows, counts[fate])
        for fate, rows in result["counts"].items()
        if rows != counts[fate]
    }
    if differ:
        raise RuntimeError(f"{name} did other work: {differ} rows (its, finsent's)")
    return {"rows_per_second": counts["rows_in"] / result["seconds"], **result}


JOB = benchmark(
    "ingest",
    bench_ingest,
    summary="Synthetic rows from CSV to a dataset version, exact work only, against single-process "
    "pandas and Polars programs that do the same; then with near-duplicates. The peers need the "
    "extra `bench`.",
    result="rows_per_second, peak_rss_bytes, over_pandas, over_polars and more",
    sections=("data", "ray"),
)

if __name__ == "__main__":
    main(JOB)
