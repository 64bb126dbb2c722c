"""`pip install 'finsent[serve]'`, without torch, serves exported models.

`tests/slow/test_image.py` installs the extra from its lock.
"""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import grpc
import httpx
import pytest
from packaging.requirements import Requirement

from serve_app.proto import sentiment_pb2 as pb
from serve_app.proto import sentiment_pb2_grpc
from tests.commands import PROJECT, environment
from tests.installed import distributions, linked_venv
from tests.served import serving

TABLE = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
ABSENT = ("torch", "transformers", "pandas", "datasets", "wandb", "scipy", "sklearn", "matplotlib")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the packages of the extra `serve` alone."""
    extra = [*TABLE["dependencies"], *TABLE["optional-dependencies"]["serve"]]
    venv = tmp_path_factory.mktemp("serve") / "venv"
    python = linked_venv(venv, distributions(map(Requirement, extra)))
    site = next((venv / "lib").glob("python*/site-packages"))
    assert not [name for name in ABSENT if (site / name).exists()]
    for package in ("finsent", "ray_jobs", "serve_app", "tune", "cluster"):
        (site / package).symlink_to(PROJECT / package)
    return python


@pytest.mark.cost(30, "starts a service with all its deployments")
def test_service_answers_without_torch(python: Path, served_root: Path) -> None:
    deployments = ("serve.shadow=challenger", "serve.record=true", "serve.explainers=1")
    limits = ("serve.limits.timeout_ms=60000", "serve.limits.queue_seconds=60")
    addresses = ("port=0", "serve.grpc_port=0")
    arguments = (*addresses, *deployments, *limits)
    with serving(served_root, *arguments, python=str(python)) as service:
        assert service.ask("Profit rose.")["label"] in ("negative", "neutral", "positive")
        assert service.ask("Profit of \u00e2\u201a\u00ac 5.")["score"] > 0  # repaired by ftfy
        client = httpx.Client(base_url=service.address, timeout=60)
        explained = client.post("/explain", json={"text": "Profit rose."})
        assert explained.status_code == 200, explained.text
        table = "text\nGewinn fällt.\n".encode("cp1250")
        scored = client.post("/predict/file", content=table, headers={"content-type": "text/csv"})
        assert scored.status_code == 200, scored.text
        assert len(scored.text.splitlines()) == 2
        with grpc.insecure_channel(service.grpc_address) as channel:
            stub = sentiment_pb2_grpc.SentimentStub(channel)
            assert stub.Predict(pb.PredictRequest(text="Up"), timeout=30).prediction.score > 0
    assert service.process.returncode == 0
    assert "Traceback" not in service.log.read_text()


def test_other_jobs_name_the_extra(python: Path, tmp_path: Path) -> None:
    command = [str(python), "-m", "ray_jobs", "train"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    prefix, suffix = "error: JOB='train': needs the package ", "pip install 'finsent[platform]'."
    assert done.stderr.startswith(prefix) and done.stderr.endswith(f" Run {suffix}\n")


def test_help_lists_all_jobs(python: Path, tmp_path: Path) -> None:
    command = [str(python), "-m", "ray_jobs", "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "  train " in done.stdout
