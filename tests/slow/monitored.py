"""A cluster with a service and jobs, scraped by a real Prometheus as in cluster/compose."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster import nodes
from cluster.monitoring.draw import PrometheusClient
from cluster.monitoring.generated import RULES
from finsent.labels import LABELS
from finsent.registry.registry import Registry
from serve_app.launch.ports import free_port
from tests.commands import PROJECT, environment, run_job, wait_until
from tests.served import publish
from tests.slow.elastic_driver import WORDS

ROWS, REQUESTS = 600, 200
QUICK = (
    "model.backbone=tiny",
    "model.max_length=64",
    "train.num_workers=1",
    "train.learning_rate=1e-3",
)
END_SERVE = "import ray, ray.serve; ray.init(); ray.serve.shutdown()"
SCRAPE_SECONDS = 2


@contextmanager
def running_cluster() -> Iterator[tuple[nodes.ClusterRecord, dict[str, str]]]:
    """A cluster of one node, and the environment of jobs that join it."""
    home = Path(tempfile.mkdtemp(prefix="fm", dir="/tmp"))  # Ray's sockets need short paths
    base = environment() | {"RAY_worker_niceness": "0", "HOME": str(home)}
    try:
        record = nodes.start(home / "ray", workers=0, cpus=4, node_environment=base)
        yield record, base | nodes.environment(record)
    finally:
        nodes.stop(home / "ray")
        shutil.rmtree(home, ignore_errors=True)


def scrape_config(metrics_port: int, service: str, key_file: Path) -> dict[str, Any]:
    """Return compose's configuration with the addresses of this machine.

    Series that come from a replica's own /metrics get the prefix `replica_`: the replica exports
    them through Ray, too, and no request may count twice.
    """
    text = (PROJECT / "cluster" / "compose" / "prometheus.yml").read_text(encoding="utf-8")
    config: dict[str, Any] = yaml.safe_load(text)
    config["global"] = {
        f"{name}_interval": f"{SCRAPE_SECONDS}s" for name in ("scrape", "evaluation")
    }
    config["rule_files"] = [str(PROJECT / RULES)]
    del config["alerting"]
    ray, finsent = config["scrape_configs"]
    del ray["dns_sd_configs"]
    ray["static_configs"] = [{"targets": [f"127.0.0.1:{metrics_port}"]}]
    finsent["static_configs"] = [{"targets": [service.removeprefix("http://")]}]
    finsent["authorization"]["credentials_file"] = str(key_file)
    finsent["metric_relabel_configs"] = [
        {
            "source_labels": ["__name__"],
            "regex": "(finsent_.+)",
            "target_label": "__name__",
            "replacement": "replica_$1",
        }
    ]
    return config


@contextmanager
def prometheus(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """A running Prometheus; yield its address."""
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _is_ready(address), 60, "Prometheus to start")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def write_rows(path: Path) -> Path:
    """Write a file of labeled rows; one of them has no text."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("Sentence", "Sentiment"))
        writer.writerow(("", "neutral"))
        for number in range(ROWS):
            label = LABELS[number % len(LABELS)]
            writer.writerow((f"Unit {number}: {WORDS[label]} {'again ' * (number % 40)}", label))
    return path


@contextmanager
def served(folder: Path, port: int, env: Mapping[str, str], keys: Path) -> Iterator[None]:
    """A service on the cluster, which needs keys."""
    try:
        started = run_job(
            "serve",
            f"storage.root={folder}",
            f"serve.api_keys={keys}",
            "engine.threads=1",
            "engine.precision=fp32",
            "serve.cache_entries=10",
            f"port={port}",
            "serve.grpc_port=0",
            cwd=folder,
            env={**env},
        )
        assert started.code == 0, started.err
        yield
    finally:
        subprocess.run([sys.executable, "-c", END_SERVE], env={**env}, timeout=120, check=True)


def ask(address: str, key: str, first: int) -> None:
    """Send requests: texts, a long and an empty text, a repeated text, and one that is no JSON.

    Args:
        first: number in the first text, so that later texts are not answered from the cache.
    """
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
        for number in range(first, first + REQUESTS):
            texts = [f"Profit of unit {number} {WORDS[label]}." for label in LABELS]
            assert client.post("/predict", json={"texts": texts}).status_code == 200
        for _ in range(2):
            client.post("/predict", json={"texts": ["Profit rose.", "", "profit " * 200]})
        assert client.post("/predict", content=b"{").status_code == 400


def run_jobs(folder: Path, env: Mapping[str, str]) -> None:
    """Run ingest, train, predict and sweep on the cluster."""
    rows = write_rows(folder / "rows.csv")
    common = (f"storage.root={folder}", f"data.sources=[{rows}]", "data.label_noise.enabled=false")
    search = json.dumps({"train.dropout": {"uniform": [0.0, 0.3]}})
    jobs: list[tuple[str, ...]] = [
        ("ingest",),
        ("train", *QUICK, "train.epochs=40", "train.patience=null", "run.name=news"),
        ("predict", f"predict.input={rows}", "data.text_column=Sentence", "run.name=archive"),
        (
            "sweep",
            *QUICK,
            "train.epochs=3",
            "run.name=search",
            f"sweep.space={search}",
            "sweep.trials=2",
            "sweep.verify_best=0",
        ),
    ]
    for name, *arguments in jobs:
        done = run_job(name, *common, *arguments, cwd=folder, env={**env})
        assert done.code == 0, (name, done.err)


@contextmanager
def monitored(folder: Path, tiny: Path) -> Iterator[PrometheusClient]:
    """A Prometheus that has scraped all kinds of jobs, and a service under requests."""
    registry = Registry(folder / "registry")
    registry.promote(publish(tiny, folder, 3), "champion")
    keys, key_file = folder / "keys.json", folder / "key"
    made = run_job("serve", f"serve.api_keys={keys}", "new-key", "prometheus", "admin", cwd=folder)
    assert made.code == 0, made.err
    key_file.write_text(made.result["key"])
    port = free_port("127.0.0.1")
    address = f"http://127.0.0.1:{port}"
    with running_cluster() as (record, env):
        [node] = record.nodes
        config = scrape_config(node.metrics_port, address, key_file)
        with prometheus(folder, config) as prometheus_address:
            client = PrometheusClient(prometheus_address)
            run_jobs(folder, env)  # before the service: predict uses all CPUs of a node
            with served(folder, port, env, keys):
                for number in range(2):  # a rate needs two values
                    ask(address, key_file.read_text(), number * REQUESTS)
                    _wait_for_requests(client, (number + 1) * REQUESTS)
                yield client


def _wait_for_requests(client: PrometheusClient, count: int) -> None:
    """Wait until Prometheus has a number of answered requests. Ray sends it every ten seconds."""
    series = 'sum(finsent_requests_total{operation="predict",status="200"})'
    wait_until(lambda: _value(client, series) >= count, 60, f"{count} requests in Prometheus")


def _value(client: PrometheusClient, expression: str) -> float:
    result: list[Any] = client.now(expression)
    return float(result[0]["value"][1]) if result else 0.0


def pictures_folder(default: Path) -> Path:
    """Return where dashboards are drawn: FINSENT_PICTURES=docs/images renews those of the docs."""
    return Path(os.environ.get("FINSENT_PICTURES") or default)
