"""buildah builds the image `serve`, which answers as a user without root.

No registry of images is needed: debootstrap makes the base system. tests/e2e/test_serve_install.py
serves without torch, and tests/unit/test_deploy_files.py checks the Dockerfile.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from finsent.registry.registry import Registry
from serve_app.launch.ports import free_port
from tests.commands import PROJECT, alive, descendants, wait_until
from tests.served import publish

MAX_BYTES = 900_000_000
PROGRAMS = ("buildah", "debootstrap")
BASE = "localhost/finsent-base"
IMAGE = "localhost/finsent:serve"
USER = 1000
# Debian's images for containers are without these, too.
DOCUMENTATION = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
DOWNLOADS = ("var/cache/apt", "var/lib/apt/lists")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, PROGRAMS)),
    reason="needs root and the programs buildah and debootstrap: .ci/programs buildah debootstrap",
)


@dataclass(frozen=True)
class Builder:
    """buildah with its own storage."""

    directory: Path

    def command(self, *arguments: str) -> list[str]:
        storage = ["--root", str(self.directory / "root"), "--runroot", str(self.directory / "run")]
        return ["buildah", "--storage-driver", "vfs", *storage, *arguments]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), cwd=PROJECT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()


def make_base_system(directory: Path) -> None:
    """Install Debian with Python, and the certificates by which this machine downloads packages."""
    release = "bookworm"
    packages = "python3,python3-venv,ca-certificates"
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", release, str(directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name in (*DOCUMENTATION, *DOWNLOADS):
        shutil.rmtree(directory / name)
    certificates = Path("etc/ssl/certs/ca-certificates.crt")
    shutil.copyfile("/" / certificates, directory / certificates)
    lines = ["[global]", f"cert = /{certificates}"]
    if index := os.environ.get("PIP_INDEX_URL"):
        lines.append(f"index-url = {index}")
    (directory / "etc" / "pip.conf").write_text("\n".join([*lines, ""]))


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """A storage with the image."""
    directory = tmp_path_factory.mktemp("images")
    builder = Builder(directory)
    make_base_system(directory / "base")
    container = builder.run("from", "scratch")
    builder.run("add", container, str(directory / "base"), "/")
    builder.run("commit", "--rm", container, BASE)
    shutil.rmtree(directory / "base")
    dockerfile = PROJECT / "cluster" / "images" / "Dockerfile"
    options = ("--isolation", "chroot", "--format", "docker", "--pull-never", "--target", "serve")
    base = ("--build-arg", f"PYTHON_IMAGE={BASE}")
    builder.run("bud", *options, *base, "--file", str(dockerfile), "--tag", IMAGE, str(PROJECT))
    yield builder
    subprocess.run(builder.command("umount", "--all"), check=False, capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def container(builder: Builder) -> str:
    """A container with this machine's limit of open files: HAProxy needs 10,267, not 1,024."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    return builder.run("from", "--pull-never", "--ulimit", f"nofile={limit}:{limit}", IMAGE)


@pytest.fixture(scope="module")
def system(builder: Builder, container: str) -> Path:
    """The directory with the files of the image."""
    return Path(builder.run("mount", container))


@pytest.fixture(scope="module")
def config(builder: Builder) -> dict[str, Any]:
    """The entry point, the user and the health check of the image."""
    config = json.loads(builder.run("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    assert isinstance(config, dict)
    return config


def test_image_is_small_and_has_no_torch_and_no_model(system: Path) -> None:
    command = ["du", "--summarize", "--bytes", str(system)]
    size = int(subprocess.check_output(command, text=True).split()[0])
    site = next((system / "opt" / "finsent" / "lib").glob("python*/site-packages"))
    assert (site / "onnxruntime").is_dir()
    absent = ("torch", "transformers", "pandas", "pip", "setuptools")
    assert not [name for name in absent if (site / name).exists()]
    assert not list(system.glob("data/*"))
    assert not list((system / "opt").rglob("*.safetensors"))
    assert size < MAX_BYTES, size


def test_document_lists_the_installed_packages(system: Path) -> None:
    document = json.loads((system / "opt" / "finsent" / "sbom.cdx.json").read_text("utf-8"))
    assert document["bomFormat"] == "CycloneDX"
    components = {item["name"]: item["version"] for item in document["components"]}
    site = next((system / "opt" / "finsent" / "lib").glob("python*/site-packages"))
    assert len(components) == len([*site.glob("*.dist-info"), *site.glob("*.egg-info")])
    assert {"finsent", "ray", "onnxruntime"} <= components.keys()


def test_image_answers_without_root(
    builder: Builder, container: str, config: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    version = publish(tiny, data, 3)
    Registry(data / "registry").promote(version, "champion")
    for path in (data, *data.rglob("*")):
        os.chown(path, USER, USER)
    for parent in data.parents[:3]:
        parent.chmod(0o755)  # pytest closes its directories to other users
    port = free_port("127.0.0.1")
    assert config["User"] == f"{USER}:{USER}"
    arguments = (*config["Entrypoint"], "serve.host=127.0.0.1", f"serve.port={port}")
    run = ("run", "--isolation", "chroot", "--volume", f"{data}:/data", container, "--")
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            builder.command(*run, *arguments), stdout=stream, stderr=subprocess.STDOUT
        )
    try:

        def is_started() -> bool:
            assert process.poll() is None, log.read_text()
            return "Ctrl-C ends it" in log.read_text()

        wait_until(is_started, 240, "the service in the container")
        prediction = httpx.post(
            f"http://127.0.0.1:{port}/predict", json={"text": "Profit rose."}, timeout=60
        ).json()
        assert prediction["model_version"] == version
        [service] = [each for each in descendants(psutil.Process(process.pid)) if is_service(each)]
        assert service.uids().real == service.gids().real == USER
        [kind, *check] = config["Healthcheck"]["Test"]
        assert kind == "CMD"
        builder.run(*run, *(word.replace("8000", str(port)) for word in check))
    finally:
        end_service(process)


def is_service(process: psutil.Process) -> bool:
    arguments = process.cmdline()
    is_python = bool(arguments) and arguments[0].startswith("/opt/finsent/bin/python")
    return is_python and arguments[1:3] == ["/opt/finsent/bin/finsent", "serve"]


def end_service(process: subprocess.Popen[bytes]) -> None:
    """End the service as a container platform does, and wait for all its processes."""
    processes = descendants(psutil.Process(process.pid))
    for each in filter(is_service, processes):
        each.send_signal(signal.SIGTERM)
    process.wait(timeout=120)
    wait_until(lambda: not alive(processes), 180, "the processes of the container to end")
