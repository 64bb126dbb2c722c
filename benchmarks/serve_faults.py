"""The service under overload, killed replicas, changing and broken versions."""

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

from benchmarks.probes import flood, probing, seconds_to_calm
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

_FLOOD_LIST = 8  # texts of a list: with one each, clients could not ask ten times too much
_DEADLINE_MS = 5000
_KILL_SECONDS = 5.0
_SWITCHES = 20
_PROBES = 16  # clients at the same time
_CALM = 2.0  # times the latency before: back to normal


def service(settings: BenchSettings, root: Path, *more: str) -> Server:
    """The service as users start it, on a registry of its own."""
    overrides = [
        f"storage.root={root}",
        "serve.port={port}",
        "serve.model=champion",
        f"engine.backend={settings.engine.backend}",
        f"engine.precision={settings.engine.precision}",
        *more,
    ]
    return Server("finsent", [sys.executable, "-m", "ray_jobs.serve", *overrides])


def replicas(root: int) -> list[int]:
    """Processes of the service's gateways."""
    found = []
    for pid in process_tree(root):
        with suppress(OSError):
            title = (Path("/proc") / str(pid) / "cmdline").read_bytes()
            if b"ServeReplica" in title and b"Gateway" in title:
                found.append(pid)
    return found


# --- overload -----------------------------------------------------------------------------------


def overload(settings: BenchSettings, root: Path, texts: list[str], work: Path) -> Result:
    """Ten times and more of what it can answer, for `bench.fault_seconds`."""
    single, _ = write_bodies(texts, work)
    lists = work / "flood.txt"
    lists.write_text(
        "\n".join(
            json.dumps({"texts": texts[i : i + _FLOOD_LIST]})
            for i in range(0, len(texts) - _FLOOD_LIST + 1, _FLOOD_LIST)
        )
    )
    limits = [f"serve.limits.timeout_ms={_DEADLINE_MS}", "serve.limits.queue_seconds=2"]
    with running(service(settings, root, *limits), work) as (address, process, _):
        load(address, single, 16, 3, work)
        sustainable = load(address, single, 64, settings.bench.seconds, work).rate
        with probing(address, texts, 1, 0.05) as before:
            time.sleep(3)
        [pid] = replicas(process.pid)
        start = memory_usage([pid]).rss
        with probing(address, texts, 4, 0.1) as during:
            sent, peak = flood(address, lists, settings.bench.fault_seconds, pid, work)
        calm = seconds_to_calm(address, texts, _CALM * statistics.median(before.good))
        end = memory_usage([pid]).rss
    offered = sent["requests"] * _FLOOD_LIST / (sent["micros"] / 1e6)
    codes = Counter(sent["codes"]) + during.codes
    return {
        "sustainable_texts_per_second": round(sustainable, 1),
        "offered_over_sustainable": round(offered / sustainable, 1),
        "codes": dict(codes),
        "unexpected": sum(n for code, n in codes.items() if code not in ("200", "429", "504"))
        + sent["errors"],
        "p99_of_200_over_deadline": round(during.p99() / (_DEADLINE_MS / 1000), 3),
        "seconds_to_normal": round(calm, 2),
        "megabytes": {
            k: round(v / 1e6) for k, v in {"before": start, "peak": peak, "after": end}.items()
        },
        "memory_growth": round(end / start - 1, 3),
    }


# --- killed replicas ----------------------------------------------------------------------------


def kills(settings: BenchSettings, root: Path, texts: list[str], work: Path) -> Result:
    """One of two replicas is killed again and again, for `bench.fault_seconds`."""
    two = [
        "serve.min_replicas=2",
        "serve.max_replicas=2",
        "engine.threads=1",
        "serve.limits.timeout_ms=30000",
    ]
    killed = 0
    with running(service(settings, root, *two), work) as (address, process, _):
        _until(lambda: len(replicas(process.pid)) == 2, 60)
        load(address, write_bodies(texts, work)[0], 16, 5, work)
        with probing(address, texts, _PROBES) as found:
            end = time.monotonic() + settings.bench.fault_seconds
            while time.monotonic() < end:
                time.sleep(_KILL_SECONDS)
                with suppress(OSError, ValueError):  # it is gone, or none is there
                    victim = min(replicas(process.pid))  # the one that has been there longest
                    os.kill(victim, signal.SIGKILL)
                    killed += 1
    return {
        "killed": killed,
        "codes": dict(found.codes),
        "failed": found.failed(),
        "p99_seconds": round(found.p99(), 3),
        "slowest_seconds": round(max(found.good), 3),
    }


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise InputError(f"benchmarks.serve_faults: not so after {seconds:.0f} s")
        time.sleep(0.05)


# --- versions -----------------------------------------------------------------------------------


def switches(settings: BenchSettings, root: Path, texts: list[str], work: Path) -> Result:
    """Move the alias back and forth under load, then to broken versions."""
    registry = Registry(root / "registry")
    first = registry.aliases()["champion"]
    second = _publish(registry, first, work / "second", _warmer)
    broken = {
        "nan_weights": _publish(registry, first, work / "nan", _not_numbers),
        "bad_digest": _publish(registry, first, work / "digest", _hotter),
    }
    weights = registry.get(broken["bad_digest"]).path / "calibration.json"
    refused = {}
    with running(service(settings, root, "serve.watch_seconds=0.2"), work) as (address, _, _):

        def info() -> Any:
            return httpx.get(f"{address}/info", timeout=30).json()

        with probing(address, texts, _PROBES) as found:
            for turn in range(_SWITCHES):
                version = (second, first)[turn % 2]
                registry.promote(version, "champion")
                _until(lambda version=version: info()["model_version"] == version, 60)  # type: ignore[misc]
            both = set(found.versions)
            weights.chmod(0o644)
            weights.write_text(weights.read_text() + " ")
            for name, version in broken.items():
                _point(root, version)
                _until(
                    lambda version=version: (info()["refused"] or {}).get("version") == version,  # type: ignore[misc]
                    60,
                )
                refused[name] = info()["refused"]["reason"]
            served = info()["model_version"]
    return {
        "switches": _SWITCHES,
        "codes": dict(found.codes),
        "failed": found.failed(),
        "both_answered": both == {first, second},
        "refused": refused,
        "old_one_served": served == first and found.versions == {first, second},
    }


def _point(root: Path, version: str) -> None:
    """Move the alias as a hand or a faulty script would: `promote` would refuse."""
    file = root / "registry" / "aliases" / "champion.json"
    write_json(file, {**read_json(file), "version": version})


def _publish(registry: Registry, version: str, folder: Path, change: Callable[[Path], None]) -> str:
    """A changed copy of a version as another one."""
    origin = registry.get(version)
    shutil.copytree(origin.path, folder)
    (folder / "manifest.json").unlink()
    change(folder)
    return registry.publish(folder, origin.manifest.metrics, {}).version


def _heated(folder: Path, factor: float) -> None:
    file = folder / "calibration.json"
    calibration = read_json(file)
    write_json(file, {**calibration, "temperature": calibration["temperature"] * factor})


def _warmer(folder: Path) -> None:
    _heated(folder, 1.25)


def _hotter(folder: Path) -> None:
    _heated(folder, 1.5)


def _not_numbers(folder: Path) -> None:
    """Weights that are NaN, and no exports that would hide them."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = file.metadata()  # the temperature that they are divided by, among others
    weights = load_file(folder / WEIGHTS)
    name = next(iter(sorted(weights)))
    weights[name] = torch.full_like(weights[name], math.nan)
    (folder / WEIGHTS).unlink()
    save_file(weights, folder / WEIGHTS, metadata)
    drop_exports(folder)


# --- the bench ----------------------------------------------------------------------------------


def bench_faults(settings: BenchSettings) -> Result:
    """All of it, on a copy of the served version in a registry of its own."""
    if shutil.which("wrk") is None:
        raise InputError("benchmarks.serve_faults: wrk is not there; apt-get install wrk")
    texts = distinct_texts(settings)
    result: Result = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        root = work / "artifacts"
        origin = Registry(settings.registry_dir).get(settings.serve.model)
        registry = Registry(root / "registry")
        copied = work / "copy"
        shutil.copytree(origin.path, copied)
        (copied / "manifest.json").unlink()
        version = registry.publish(copied, origin.manifest.metrics, {}).version
        registry.promote(version, "champion")
        for part in (overload, kills, switches):
            log.info("benchmarks.serve_faults: %s", part.__name__)
            result[part.__name__] = part(settings, root, texts, work)
    return result


JOB = benchmark(
    "serve_faults",
    bench_faults,
    summary="The service under ten times the load that it can answer, with one of two replicas "
    "killed every five seconds, and with versions that change or are broken under load.",
    result="overload, kills, switches, each with the codes that clients got",
    sections=("data", "serve", "engine", "registry", "ray"),
)

if __name__ == "__main__":
    main(JOB)
