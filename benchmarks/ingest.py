"""Ingest of synthetic rows: rows/s and peak memory, compared with pandas and Polars."""

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
from dataclasses import dataclass
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
ROWS_PER_FILE = 1_000_000
SEED = 1
Measurement = dict[str, Any]  # of one ingest, or of a peer's work on the same rows


@dataclass(frozen=True)
class Ingests:
    """Measurements of finsent's ingest, on all rows and on a tenth of them."""

    exact: Measurement
    exact_tenth: Measurement
    near: Measurement  # with near-duplicates
    near_tenth: Measurement


def bench_ingest(settings: BenchSettings) -> dict[str, Any]:
    """Generate rows, ingest them, and ingest a part of them in turn with the peers.

    Raises:
        InputError: a peer is not installed, or Ray runs on other machines, too.
        RuntimeError: a peer or the generator counts other rows than finsent.
    """
    _check_environment(settings)
    row_count = settings.bench.rows or ROWS
    peer_row_count = min(settings.bench.peer_rows, row_count)
    bench_dir = make_dir(settings.workspace.root.path / "bench", "storage.root")
    with tempfile.TemporaryDirectory(dir=bench_dir) as name:
        work = Path(name)
        log.info("generating %d rows", row_count)
        rows = _generate(work / "rows", row_count)
        tenth = _generate(work / "tenth", max(row_count // 10, 1))
        is_shared = peer_row_count == row_count
        peer_rows = rows if is_shared else _generate(work / "peers", peer_row_count)
        exact_tenth = _measure(settings, tenth, work)
        exact = _measure(settings, rows, work)
        log.info(
            "%d rows: %.0f rows/s, peak %.2f GB; a tenth of the rows: peak %.2f GB",
            row_count,
            exact["rows_per_second"],
            exact["peak_rss_bytes"] / 1e9,
            exact_tenth["peak_rss_bytes"] / 1e9,
        )
        rounds = _rounds(settings, peer_rows, work)
        near_tenth = _measure(settings, tenth, work, near=True)
        near = _measure(settings, rows, work, near=True)
    _check_counts(exact["counts"], row_count)
    return {
        **_figures(Ingests(exact, exact_tenth, near, near_tenth), rounds),
        "rows": row_count,
        "peer_rows": peer_row_count,
    }


def _check_environment(settings: BenchSettings) -> None:
    for peer in PEERS:
        if importlib.util.find_spec(peer) is None:
            raise InputError(
                f"benchmarks.ingest: {peer} is not installed. Run `pip install 'finsent[dev]'`."
            )
    if settings.ray.address or os.environ.get("RAY_ADDRESS"):
        raise InputError(
            "benchmarks.ingest: needs its own Ray, because the benchmark measures the "
            "memory of this machine's processes. Set ray.address=null and unset RAY_ADDRESS."
        )


def _check_counts(counts: dict[str, int], row_count: int) -> None:
    wanted = expected(row_count, SEED)
    if counts["kept"] != wanted.kept or counts["conflicts"] != wanted.conflicts:
        raise RuntimeError(f"counts={counts}: differ from those of the generator, {wanted}")


def _figures(ingests: Ingests, rounds: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Return rates, ratios and memory, and the measurements that they come from."""
    exact, near = ingests.exact, ingests.near
    medians = {
        name: statistics.median(measurement["rows_per_second"] for measurement in measurements)
        for name, measurements in rounds.items()
    }
    return {
        "rows_per_second": exact["rows_per_second"],
        "rows_per_second_with_start": exact["rows_per_second_with_start"],
        "peak_rss_bytes": exact["peak_rss_bytes"],
        "peak_rss_sum_bytes": exact["peak_rss_sum_bytes"],
        "memory_growth": exact["peak_rss_bytes"] / ingests.exact_tenth["peak_rss_bytes"],
        **{f"over_{name}": medians["finsent"] / medians[name] for name in PEERS},
        "near_rows_per_second": near["rows_per_second"],
        "near_peak_rss_bytes": near["peak_rss_bytes"],
        "near_memory_growth": near["peak_rss_bytes"] / ingests.near_tenth["peak_rss_bytes"],
        "counts": exact["counts"],
        "medians": medians,
        "rounds": rounds,
        "near": near,
        "tenth": ingests.exact_tenth,
        "near_tenth": ingests.near_tenth,
    }


def _generate(folder: Path, row_count: int) -> Path:
    write_rows(folder, row_count, files=max(2, -(-row_count // ROWS_PER_FILE)), seed=SEED)
    return folder


def _measure(settings: BenchSettings, folder: Path, work: Path, near: bool = False) -> Measurement:
    """Ingest a folder as a user does, on its own Ray.

    Args:
        settings: of the benchmark.
        folder: has the rows.
        work: gets a temporary directory for the dataset version.
        near: whether ingest looks for near-duplicates.
    """
    config = load(
        BenchSettings,
        [],
        [
            f"data.sources=['{folder}']",
            "data.label_noise.enabled=false",
            f"data.near_duplicates.enabled={str(near).lower()}",
        ],
    ).data
    with tempfile.TemporaryDirectory(dir=work) as name, MemorySampler() as memory:
        ray_start = time.perf_counter()
        with ray_session(settings):
            ingest_start = time.perf_counter()
            version = ingest(config, Path(name), find_sources(config, Path(name) / "hubs"))
            end = time.perf_counter()
        counts = version.manifest.counts
    return {
        "rows_per_second": counts.rows_in / (end - ingest_start),
        "rows_per_second_with_start": counts.rows_in / (end - ray_start),
        "seconds": end - ingest_start,
        "peak_rss_bytes": memory.peak_pss,
        "peak_rss_sum_bytes": memory.peak_rss,
        "counts": counts.model_dump(),
    }


def _rounds(settings: BenchSettings, folder: Path, work: Path) -> dict[str, list[Measurement]]:
    """Measure finsent and the peers in turn; measurements by name."""
    rounds: dict[str, list[Measurement]] = {name: [] for name in ("finsent", *PEERS)}
    for number in range(1, settings.bench.rounds + 1):
        ours = _measure(settings, folder, work)
        rounds["finsent"].append(ours)
        for name in PEERS:
            rounds[name].append(_measure_peer(name, folder, work, ours["counts"]))
        rates = ", ".join(f"{name} {rounds[name][-1]['rows_per_second']:.0f}" for name in rounds)
        log.info("round %d of %d: %s rows/s", number, settings.bench.rounds, rates)
    return rounds


def _measure_peer(name: str, folder: Path, work: Path, counts: dict[str, int]) -> Measurement:
    """Run a peer on a folder.

    Raises:
        RuntimeError: the peer counts other rows than finsent.
    """
    with tempfile.TemporaryDirectory(dir=work) as out:
        command = [sys.executable, "-m", "benchmarks.peers.dataframes", name, str(folder), out]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: Measurement = json.loads(process.stdout.splitlines()[-1])
    differences = {
        kind: (rows, counts[kind])
        for kind, rows in result["counts"].items()
        if rows != counts[kind]
    }
    if differences:
        raise RuntimeError(
            f"{name}: counts differ from finsent's (rows: its, finsent's): {differences}"
        )
    return {"rows_per_second": counts["rows_in"] / result["seconds"], **result}


JOB = benchmark(
    "ingest",
    bench_ingest,
    summary="Measure ingest of synthetic CSV rows: exact work only, compared with pandas and "
    "Polars programs that do the same in one process; then with near-duplicates. The peers need "
    "the extra `bench`.",
    result="rows_per_second, peak_rss_bytes, over_pandas, over_polars and more",
    sections=("data", "ray"),
)

if __name__ == "__main__":
    main(JOB)
