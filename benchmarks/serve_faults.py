"""The service under overload, with killed replicas, and with versions that change or are broken."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from benchmarks.probes import flood, probing, recovery_seconds
from benchmarks.serve import distinct_texts, load, write_bodies
from benchmarks.servers import Server, running
from benchmarks.settings import BenchSettings, benchmark
from finsent.errors import InputError
from finsent.files import read_json, write_json
from finsent.inference.export_record import drop_exports
from finsent.memory import memory_usage, process_tree
from finsent.modeling.model_dir import WEIGHTS
from finsent.registry.registry import Registry
from ray_jobs._cli import Result, main

log = logging.getLogger(__name__)

FLOOD_LIST_LENGTH = 8  # texts per request: with one text, wrk could not send ten times the capacity
DEADLINE_MS = 5000
EXPECTED_CODES = ("200", "429", "504")  # under overload
KILL_SECONDS = 5.0  # between two kills
SWITCHES = 20
PROBE_CLIENTS = 16
NORMAL_LATENCY = 2.0  # at most, over the median latency before the overload


def service(settings: BenchSettings, root: Path, *overrides: str) -> Server:
    """Return the service as users start it, on the registry below a storage root."""
    arguments = [
        f"storage.root={root}",
        "serve.port={port}",
        "serve.model=champion",
        f"engine.backend={settings.engine.backend}",
        f"engine.precision={settings.engine.precision}",
        *overrides,
    ]
    return Server("finsent", [sys.executable, "-m", "ray_jobs.serve", *arguments])


def gateway_processes(root: int) -> list[int]:
    """Return the ids of the gateways' processes below a root process."""
    gateways = []
    for pid in process_tree(root):
        with suppress(OSError):
            title = (Path("/proc") / str(pid) / "cmdline").read_bytes()
            if b"ServeReplica" in title and b"Gateway" in title:
                gateways.append(pid)
    return gateways


# --- overload -----------------------------------------------------------------------------------


def overload(settings: BenchSettings, root: Path, texts: list[str], work: Path) -> Result:
    """Load the service with ten times its capacity and more, for `bench.fault_seconds`."""
    single, _ = write_bodies(texts, work)
    lists = work / "flood.txt"
    lists.write_text(
        "\n".join(
            json.dumps({"texts": texts[i : i + FLOOD_LIST_LENGTH]})
            for i in range(0, len(texts) - FLOOD_LIST_LENGTH + 1, FLOOD_LIST_LENGTH)
        )
    )
    limits = [f"serve.limits.timeout_ms={DEADLINE_MS}", "serve.limits.queue_seconds=2"]
    with running(service(settings, root, *limits), work) as (address, process):
        load(address, single, 16, 3, work)
        sustainable = load(address, single, 64, settings.bench.seconds, work).rate
        with probing(address, texts, 1, 0.05) as before:
            time.sleep(3)
        [pid] = gateway_processes(process.pid)
        memory_before = memory_usage([pid]).rss
        with probing(address, texts, 4, 0.1) as during:
            sent, memory_peak = flood(address, lists, settings.bench.fault_seconds, pid, work)
        latency = statistics.median(before.seconds)
        recovery = recovery_seconds(address, texts, NORMAL_LATENCY * latency)
        memory_after = memory_usage([pid]).rss
    offered = sent["requests"] * FLOOD_LIST_LENGTH / (sent["micros"] / 1e6)
    codes = Counter(sent["codes"]) + during.codes
    unexpected = sum(count for code, count in codes.items() if code not in EXPECTED_CODES)
    return {
        "sustainable_texts_per_second": round(sustainable, 1),
        "offered_over_sustainable": round(offered / sustainable, 1),
        "codes": dict(codes),
        "unexpected": unexpected + sent["errors"],
        "p99_of_200_over_deadline": round(during.p99() / (DEADLINE_MS / 1000), 3),
        "seconds_to_normal": round(recovery, 2),
        "megabytes": {
            "before": round(memory_before / 1e6),
            "peak": round(memory_peak / 1e6),
            "after": round(memory_after / 1e6),
        },
        "memory_growth": round(memory_after / memory_before - 1, 3),
    }


# --- killed replicas ----------------------------------------------------------------------------


def kills(settings: BenchSettings, root: Path, texts: list[str], work: Path) -> Result:
    """Kill one of two replicas every `KILL_SECONDS`, for `bench.fault_seconds`."""
    two_replicas = [
        "serve.min_replicas=2",
        "serve.max_replicas=2",
        "engine.threads=1",
        "serve.limits.timeout_ms=30000",
    ]
    killed = 0
    with running(service(settings, root, *two_replicas), work) as (address, process):
        _wait_until(lambda: len(gateway_processes(process.pid)) == 2, 60)
        load(address, write_bodies(texts, work)[0], 16, 5, work)
        with probing(address, texts, PROBE_CLIENTS) as probes:
            end = time.monotonic() + settings.bench.fault_seconds
            while time.monotonic() < end:
                time.sleep(KILL_SECONDS)
                with suppress(OSError, ValueError):  # the replica ended, or none runs
                    oldest = min(gateway_processes(process.pid))
                    os.kill(oldest, signal.SIGKILL)
                    killed += 1
    return {
        "killed": killed,
        "codes": dict(probes.codes),
        "failed": probes.failed(),
        "p99_seconds": round(probes.p99(), 3),
        "slowest_seconds": round(max(probes.seconds), 3),
    }


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise InputError(
                f"benchmarks.serve_faults: the service did not change within {seconds:.0f} seconds."
            )
        time.sleep(0.05)


# --- versions -----------------------------------------------------------------------------------


def switches(settings: BenchSettings, root: Path, texts: list[str], work: Path) -> Result:
    """Move the alias back and forth under load, then to broken versions."""
    registry = Registry(root / "registry")
    champion = registry.aliases()["champion"]
    second = _publish_changed(registry, champion, work / "second", _scale_temperature(1.25))
    broken = {
        "nan_weights": _publish_changed(registry, champion, work / "nan", _write_nan_weights),
        "bad_digest": _publish_changed(
            registry, champion, work / "digest", _scale_temperature(1.5)
        ),
    }
    damaged_file = registry.get(broken["bad_digest"]).path / "calibration.json"
    reasons = {}
    with running(service(settings, root, "serve.watch_seconds=0.2"), work) as (address, _):

        def info() -> Any:
            return httpx.get(f"{address}/info", timeout=30).json()

        with probing(address, texts, PROBE_CLIENTS) as probes:
            for turn in range(SWITCHES):
                version = (second, champion)[turn % 2]
                registry.promote(version, "champion")
                _wait_until(lambda version=version: info()["model_version"] == version, 60)  # type: ignore[misc]
            switched_versions = set(probes.versions)
            damaged_file.chmod(0o644)
            damaged_file.write_text(damaged_file.read_text() + " ")
            for name, version in broken.items():
                _overwrite_alias(root, version)
                _wait_until(
                    lambda version=version: (info()["refused"] or {}).get("version") == version,  # type: ignore[misc]
                    60,
                )
                reasons[name] = info()["refused"]["reason"]
            served_version = info()["model_version"]
    return {
        "switches": SWITCHES,
        "codes": dict(probes.codes),
        "failed": probes.failed(),
        "both_answered": switched_versions == {champion, second},
        "refused": reasons,
        "old_one_served": served_version == champion and probes.versions == {champion, second},
    }


def _overwrite_alias(root: Path, version: str) -> None:
    """Write a version into the alias's file, because `promote` refuses a broken version."""
    file = root / "registry" / "aliases" / "champion.json"
    write_json(file, {**read_json(file), "version": version})


def _publish_changed(
    registry: Registry, version: str, folder: Path, change: Callable[[Path], None]
) -> str:
    """Publish a changed copy of a version, and return the id of the new version."""
    origin = registry.get(version)
    shutil.copytree(origin.path, folder)
    (folder / "manifest.json").unlink()
    change(folder)
    return registry.publish(folder, origin.manifest.metrics, {}).version


def _scale_temperature(factor: float) -> Callable[[Path], None]:
    """Return a change that multiplies the temperature of a model's calibration."""

    def change(folder: Path) -> None:
        file = folder / "calibration.json"
        calibration = read_json(file)
        write_json(file, {**calibration, "temperature": calibration["temperature"] * factor})

    return change


def _write_nan_weights(folder: Path) -> None:
    """Overwrite a weight with NaN, and remove the exports, which still have numbers."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = file.metadata()  # has the temperature that is folded into the weights
    weights = load_file(folder / WEIGHTS)
    name = min(weights)
    weights[name] = torch.full_like(weights[name], math.nan)
    (folder / WEIGHTS).unlink()
    save_file(weights, folder / WEIGHTS, metadata)
    drop_exports(folder)


# --- the benchmark ------------------------------------------------------------------------------


def bench_faults(settings: BenchSettings) -> Result:
    """Run all faults on a copy of the served version, in its own registry."""
    if shutil.which("wrk") is None:
        raise InputError(
            "benchmarks.serve_faults: wrk is not installed. Run `apt-get install wrk`."
        )
    texts = distinct_texts(settings)
    result: Result = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        root = work / "artifacts"
        origin = Registry(settings.workspace.registry).get(settings.serve.model)
        registry = Registry(root / "registry")
        copied = work / "copy"
        shutil.copytree(origin.path, copied)
        (copied / "manifest.json").unlink()
        version = registry.publish(copied, origin.manifest.metrics, {}).version
        registry.promote(version, "champion")
        for fault in (overload, kills, switches):
            log.info("benchmarks.serve_faults: %s", fault.__name__)
            result[fault.__name__] = fault(settings, root, texts, work)
    return result


JOB = benchmark(
    "serve_faults",
    bench_faults,
    summary="Measure the service under ten times its capacity, with one of two replicas killed "
    "every five seconds, and with versions that change or are broken under load.",
    result="overload, kills, switches, each with the counts of status codes",
    sections=("data", "serve", "engine", "registry", "ray"),
)

if __name__ == "__main__":
    main(JOB)
