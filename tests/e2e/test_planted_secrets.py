"""Secrets that jobs and the service know are in no log, record, page, answer or command line."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from finsent.modeling.provenance import DatasetOrigin
from tests.commands import PROJECT, descendants, invoke_job
from tests.readme import sample_rows, write_csv
from tests.served import Served, serving
from tests.unit.models import saved_model

IN_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED7Q2M5X9ZW",
    "AWS_SECRET_ACCESS_KEY": "planted/s3+credential/4kWq8ZtN1vB6yH3mR0sD",
    "AWS_SESSION_TOKEN": "planted-session-5dPq9YxJ2cLw7aGn",
    "HF_TOKEN": "hf_plantedhub3mVt8QzKx1LbRw6YdHs",
    "RAY_AUTH_TOKEN": "planted-ray-9f3c1e7ab2d84650a1c7e2f0b6d8",
    "WANDB_API_KEY": "7a1planted0c9e2b4d6f8a1c3e5b7d9f0a2c4e6b",
}
PASSWORD = "planted-password-6Rt2Lm8Wq"
WRONG_KEY = "planted-wrong-key-1Zx5Cv9Bn"


@pytest.fixture(scope="module")
def environment_with_secrets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in IN_ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


def leaks(directory: Path, secrets: dict[str, str]) -> list[str]:
    """Return the name of each secret that a file has, with the file."""
    named: list[str] = []
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):  # a log that was rotated
            if stat.S_ISREG(path.lstat().st_mode):
                content = path.read_bytes()
                named += [
                    f"{name} in {path}"
                    for name, secret in secrets.items()
                    if secret.encode() in content
                ]
    return named


def leaks_of_text(text: str, secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if secret in text]


def test_a_leak_is_found(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "log").write_bytes(b"\xff key=" + PASSWORD.encode() + b"\n")
    (tmp_path / "link").symlink_to(tmp_path / "inner" / "log")
    assert leaks(tmp_path, {"password": PASSWORD, "other": WRONG_KEY}) == [
        f"password in {tmp_path / 'inner' / 'log'}"
    ]
    assert leaks_of_text(f"a {PASSWORD}", {"password": PASSWORD, "other": "x"}) == ["password"]


@pytest.mark.usefixtures("environment_with_secrets")
@pytest.mark.cost(25, "runs three jobs and their model")
def test_jobs_write_no_secret(tiny: Path, project: Path) -> None:
    secrets = {**IN_ENVIRONMENT, "password": PASSWORD}
    write_csv(project / "rows.csv", sample_rows()[:60])
    rows = f"data.sources=[{project}/rows.csv]"
    root = f"storage.root={project}/artifacts"
    ingested = invoke_job("ingest", "configs/debug.yaml", rows, root)
    assert ingested.code == 0, ingested.err
    name, version = ingested.result["dataset"], ingested.result["dataset_version"]
    model = saved_model(tiny, project / "model", dataset=DatasetOrigin(name=name, version=version))
    options = ("tracking.mode=offline", "engine.threads=1", "evaluate.behavior=null")
    evaluated = invoke_job(
        "evaluate", "configs/debug.yaml", f"evaluate.model={model}", *options, root
    )
    assert evaluated.code == 0, evaluated.err
    storage = f"sweep.storage=postgresql://me:{PASSWORD}@127.0.0.1:1/x"
    printed = invoke_job("sweep", storage, "--print-config")
    assert printed.code == 0 and "127.0.0.1:1/x" in printed.out
    refused = invoke_job("sweep", storage, "sweep.storrage=x")
    assert refused.code == 2
    for done in (ingested, evaluated, printed, refused):
        assert not leaks_of_text(done.out + done.err, secrets)
    assert len(list((project / "artifacts" / "runs").iterdir())) == 2
    assert not leaks(project, secrets)


def texts_of_service(service: Served, key: str) -> Iterator[tuple[str, str]]:
    """Ask for every page and answer, and yield each with its address."""
    client = httpx.Client(base_url=service.address, timeout=60)
    paths = ("/", "/docs", "/openapi.json", "/info", "/model-card", "/metrics", "/health", "/none")
    for path in paths:
        for given in (key, WRONG_KEY):
            response = client.get(path, headers={"authorization": f"Bearer {given}"})
            yield f"{path} {response.status_code}", f"{response.text} {response.headers}"
    for given, status in ((key, 200), (WRONG_KEY, 401)):
        for body in ({"text": "Profit rose."}, {"text": 5}):
            response = client.post("/predict", json=body, headers={"x-api-key": given})
            assert response.status_code in (status, 422)
            yield "/predict", f"{response.text} {response.headers}"


@pytest.mark.usefixtures("environment_with_secrets")
@pytest.mark.cost(30, "starts a service")
def test_service_shows_no_secret(served_root: Path, project: Path) -> None:
    keys = project / "keys.json"
    made = invoke_job("serve", f"serve.api_keys={keys}", "new-key", "desk", "admin")
    key = made.result["key"]
    secrets = {**IN_ENVIRONMENT, "key": str(key), "wrong key": WRONG_KEY}
    assert not leaks_of_text(made.err, secrets)
    addresses = ("port=0", "serve.grpc_port=0")
    logs = ("serve.record=true", "serve.log_requests=true")
    arguments = (f"serve.api_keys={keys}", *addresses, *logs)
    with serving(served_root, *arguments) as service:
        for address, text in texts_of_service(service, str(key)):
            assert not leaks_of_text(text, secrets), address
        processes = descendants(psutil.Process(service.process.pid))
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                assert not leaks_of_text(" ".join(process.cmdline()), secrets)
        [directory] = re.findall(r"logs: (\S+)/serve ", service.log.read_text())
        session = Path(directory)
        assert list(session.glob("serve/replica_*.log"))
    assert not leaks(session, secrets)
    assert not leaks(served_root, secrets)
    assert not leaks(project, secrets)


def test_no_file_of_the_project_has_a_key() -> None:
    """Keys of AWS, Hugging Face and GitHub, and private keys."""
    forms = "|".join(
        (r"AKIA[0-9A-Z]{16}", r"hf_[A-Za-z]{30,}", r"gh[pousr]_\w{36}", r"BEGIN \w* ?PRIVATE KEY")
    )
    for folder in ("cluster", "configs", "docs", "examples", ".github", ".ci"):
        for path in (PROJECT / folder).rglob("*"):
            if path.suffix in (".yaml", ".yml", ".md", ".json", ".sh", ".lock", ""):
                text = path.read_text("utf-8") if path.is_file() else ""
                assert not re.search(forms, text), path
