"""The files of `cluster/` for containers, clouds and Slurm name what exists and pass linters.

No container runs here. `tests/slow/test_slurm.py` runs the Slurm script.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from finsent.adapters.ray_core import ENVIRONMENT
from ray_jobs._cli import invoke
from tests.commands import PROJECT, environment, job_named

CLUSTER = PROJECT / "cluster"
DOCKERFILE = CLUSTER / "images" / "Dockerfile"
COMPOSE = CLUSTER / "compose" / "docker-compose.yaml"
PROMETHEUS = CLUSTER / "compose" / "prometheus.yml"
SBATCH = CLUSTER / "slurm" / "finsent.sbatch"
RAY_UP = sorted((CLUSTER / "ray_up").glob("*.yaml"))
SCRIPTS = sorted([*CLUSTER.glob("*.sh"), *CLUSTER.glob("[!k]*/*.sh"), SBATCH])
FILES = [DOCKERFILE, COMPOSE, PROMETHEUS, *RAY_UP, *SCRIPTS]
MADE_BY_USERS = {
    f"cluster/compose/secrets/{name}" for name in ("token", "metrics_key", "grafana_password")
}


def words(text: str) -> Iterator[str]:
    """Yield the words of a file, without quotes and the source directory of nodes and images."""
    for word in re.split(r"[\s\"'`,:=(){}\[\]]+", text):
        yield word.removeprefix("~/finsent-source/").removesuffix(".")


def stages() -> dict[str, list[list[str]]]:
    """Return the instructions of each stage of the Dockerfile, as words."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.M).replace("\\\n", " ")
    instructions = [shlex.split(line) for line in text.splitlines() if line.strip()]
    by_stage: dict[str, list[list[str]]] = {}
    name = ""
    for instruction in instructions:
        if instruction[0] == "FROM":
            name = instruction[3]
        if name:
            by_stage.setdefault(name, []).append(instruction)
    return by_stage


def compose() -> dict[str, Any]:
    text = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", COMPOSE.read_text("utf-8"))
    assert "$" not in text
    document = yaml.safe_load(text)
    assert isinstance(document, dict)
    return document


def check_ray_command(arguments: list[str]) -> list[str]:
    """Parse a command of Ray by its own parser, and return the entrypoint of a submitted job."""
    from ray.scripts.scripts import cli

    command: click.Command = cli
    context = click.Context(cli)
    remaining = arguments
    while isinstance(command, click.Group):
        subcommand = command.get_command(context, remaining[0])
        assert subcommand is not None, arguments
        command, remaining = subcommand, remaining[1:]
    # Without the callbacks of options, which read files and environment.
    parser = command.make_parser(click.Context(command))
    values, _, _ = parser.parse_args(list(remaining))
    return list(values.get("entrypoint", ()))


def check_job_command(job: str, arguments: list[str]) -> None:
    finished = invoke(job_named(job), ["--print-config", *arguments])
    assert finished.code == 0, finished.err


def lint(program: str, *arguments: str) -> None:
    path = shutil.which(program, path=environment()["PATH"])
    assert path, f"{program} is not installed: make install"
    finished = subprocess.run(
        [path, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_named_paths_and_modules_exist(file: Path) -> None:
    text = file.read_text("utf-8")
    paths = {
        word
        for word in words(text)
        if re.match(r"(cluster|docs|finsent|ray_jobs|serve_app|tune)/[a-z]", word)
    }
    missing = {path for path in paths - MADE_BY_USERS if not (PROJECT / path).exists()}
    assert not missing
    modules = set(re.findall(r"\bpython -m ([\w.]+)", text))
    modules |= set(re.findall(r"\b((?:finsent|ray_jobs|cluster)\.[a-z_]+(?:\.[a-z_]+)*)", text))
    modules.discard("finsent.sbatch")
    assert all(find_spec(name) for name in modules), modules


@pytest.mark.cost(4, "starts hadolint")
def test_dockerfile_passes_hadolint() -> None:
    lint("hadolint", "--failure-threshold=style", str(DOCKERFILE))


@pytest.mark.cost(4, "starts shellcheck")
def test_scripts_pass_shellcheck() -> None:
    lint("shellcheck", "--external-sources", *map(str, SCRIPTS))


def test_scripts_can_be_started() -> None:
    for name in ("images/install.sh", "ray_up/setup.sh"):
        assert os.access(CLUSTER / name, os.X_OK), name


def test_nodes_have_the_environment_of_jobs() -> None:
    lines = (CLUSTER / "environment.sh").read_text("utf-8")
    exported = dict(re.findall(r"^export (\w+)=(.*)$", lines, flags=re.M))
    assert exported == {**ENVIRONMENT, "RAY_AUTH_MODE": "token"}
    in_image: dict[str, str] = {}
    for instruction in stages()["runtime"]:
        if instruction[0] == "ENV":
            in_image |= dict(word.split("=", 1) for word in instruction[1:])
    assert exported.items() <= in_image.items()


def test_image_is_built_from_existing_files_and_no_others() -> None:
    ignore = (PROJECT / ".dockerignore").read_text("utf-8").splitlines()
    patterns = [line for line in ignore if line and not line.startswith("#")]
    assert patterns[0] == "*"
    sent = {line[1:] for line in patterns if line.startswith("!")}
    assert all((PROJECT / name).exists() for name in sent)
    assert "cluster/compose/secrets" in patterns
    packages = {"cluster", "finsent", "ray_jobs", "serve_app", "tune"}
    assert sent == packages | {"requirements.lock", "pyproject.toml", "README.md", "LICENSE"}
    for instructions in stages().values():
        for instruction in instructions:
            if instruction[0] == "COPY" and not instruction[1].startswith("--from"):
                assert (PROJECT / instruction[1]).exists(), instruction
                assert instruction[1] == "." or instruction[1].split("/")[0] in sent


@pytest.mark.parametrize("target", ["cpu", "gpu", "serve"])
def test_targets_run_without_root(target: str) -> None:
    by_stage = stages()
    name, users = target, []
    while name in by_stage:
        users += [line[1] for line in reversed(by_stage[name]) if line[0] == "USER"]
        name = by_stage[name][0][1]
    assert users[0] == "1000:1000"


@pytest.mark.cost(2, "imports a job")
def test_serve_target_serves() -> None:
    instructions = {line[0]: line[1:] for line in stages()["serve"]}
    entrypoint = json.loads(
        re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE.read_text("utf-8"), flags=re.M)[0]
    )
    assert entrypoint[:2] == ["finsent", "serve"]
    check_job_command("serve", entrypoint[2:])
    check_job_command("serve", [*entrypoint[2:], "serve.port=9999"])
    assert instructions["EXPOSE"] == ["8000"]
    assert "http://127.0.0.1:8000/readyz" in DOCKERFILE.read_text("utf-8")


@pytest.fixture
def fake_pip(tmp_path: Path) -> dict[str, str]:
    """An environment whose pip writes its arguments and the packages of its lock to PIP_LOG."""
    script = tmp_path / "bin" / "pip"
    script.parent.mkdir()
    script.write_text(
        '#!/bin/sh\necho "$@" >>"$PIP_LOG"\n'
        "for file; do case $file in\n"
        '*.lock) grep -oE "^[a-z0-9-]+==[^ ]+" "$file" >>"$PIP_LOG";;\n'
        "esac; done\n"
    )
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PIP_LOG": str(tmp_path / "log")}


def install(variant: str, env: dict[str, str]) -> list[str]:
    command = [str(CLUSTER / "images" / "install.sh"), variant]
    subprocess.run(command, cwd=PROJECT, env=env, check=True)
    return Path(env["PIP_LOG"]).read_text().splitlines()


def locked(lock: str = "requirements.lock") -> list[str]:
    text = (PROJECT / lock).read_text("utf-8")
    return re.findall(r"^[a-z0-9-]+==[^ ]+", text, flags=re.M)


@pytest.mark.cost(2, "starts a shell")
def test_cpu_image_has_the_lock_without_gpu_libraries(fake_pip: dict[str, str]) -> None:
    lines = install("cpu", fake_pip)
    packages = [line for line in lines if re.fullmatch(r"[a-z0-9-]+==\S+", line)]
    removed = set(locked()) - set(packages)
    assert all(re.match(r"torch|triton|nvidia-|cuda-", name) for name in removed)
    assert not any(re.match(r"torch==|triton|nvidia-|cuda-", name) for name in packages)
    [torch] = [name for name in removed if name.startswith("torch==")]
    [of_torch] = [line for line in lines if line.endswith(torch)]
    assert "--index-url https://download.pytorch.org/whl/cpu" in of_torch
    others = [line for line in lines if line.startswith("install ") and line != of_torch]
    assert all("--require-hashes" in line for line in others)
    assert lines[-1] == "check"


@pytest.mark.cost(2, "starts a shell")
def test_gpu_image_has_the_complete_lock(fake_pip: dict[str, str]) -> None:
    lines = install("gpu", fake_pip)
    assert [line for line in lines if "==" in line][1:] == locked()
    assert all("--require-hashes" in line for line in lines if line.startswith("install "))


@pytest.mark.cost(2, "starts a shell")
def test_serve_image_has_its_lock_and_no_torch(fake_pip: dict[str, str]) -> None:
    lines = install("serve", fake_pip)
    [setuptools, *packages] = [line for line in lines if "==" in line]
    assert setuptools in locked()
    assert packages == locked("cluster/images/serve.lock")
    assert not any(re.match(r"torch==|transformers==", name) for name in packages)
    assert all("--require-hashes" in line for line in lines if line.startswith("install "))


@pytest.mark.cost(2, "starts a shell")
def test_unknown_variant_is_refused(fake_pip: dict[str, str]) -> None:
    command = [str(CLUSTER / "images" / "install.sh"), "tpu"]
    finished = subprocess.run(
        command, cwd=PROJECT, env=fake_pip, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr == "error: variant='tpu': unknown. Write cpu, gpu or serve.\n"


def test_compose_names_existing_targets_files_and_secrets() -> None:
    document = compose()
    services = document["services"]
    for name, service in services.items():
        if build := service.get("build"):
            context = (COMPOSE.parent / build["context"]).resolve()
            assert context == PROJECT
            assert (context / build["dockerfile"]).resolve() == DOCKERFILE
            assert build["target"] in stages()
            assert service["image"] == f"finsent:{build['target']}"
        assert set(service.get("secrets", ())) <= set(document["secrets"])
        assert set(service.get("depends_on", ())) <= set(services), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in document["volumes"] or (COMPOSE.parent / source).exists()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for secret in document["secrets"].values():
        path = (COMPOSE.parent / secret["file"]).resolve().relative_to(PROJECT).as_posix()
        assert path in MADE_BY_USERS


@pytest.mark.cost(4, "imports Ray's commands")
def test_compose_commands_are_understood() -> None:
    services = compose()["services"]
    for name in ("head", "worker"):
        assert services[name]["command"][0] == "ray"
        assert check_ray_command(services[name]["command"][1:]) == []
    entrypoint = check_ray_command(services["pipeline"]["command"][1:])
    assert entrypoint[:3] == ["python", "-m", "ray_jobs.pipeline"]
    check_job_command("pipeline", entrypoint[3:])
    [fixed] = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE.read_text("utf-8"), flags=re.M)
    check_job_command("serve", [*json.loads(fixed)[2:], *services["service"]["command"]])


def test_prometheus_reads_services_of_compose() -> None:
    document = compose()
    services = document["services"]
    scrapes = yaml.safe_load(PROMETHEUS.read_text("utf-8"))["scrape_configs"]
    jobs = {scrape["job_name"]: scrape for scrape in scrapes}
    [discovery] = jobs["ray"]["dns_sd_configs"]
    assert set(discovery["names"]) <= set(services)
    for name in discovery["names"]:
        assert f"--metrics-export-port={discovery['port']}" in services[name]["command"]
    [targets] = jobs["finsent"]["static_configs"]
    assert targets["targets"] == ["service:8000"]
    credentials = jobs["finsent"]["authorization"]["credentials_file"]
    assert Path(credentials).name in services["prometheus"]["secrets"]
    assert jobs["finsent"]["metrics_path"] == "/metrics"


def ray_up_config(path: Path) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config

    document = yaml.safe_load(path.read_text("utf-8"))
    config = prepare_config(document)
    assert isinstance(config, dict)
    return config


@pytest.mark.cost(4, "imports Ray's autoscaler")
@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
def test_ray_up_file_is_valid(path: Path) -> None:
    from ray.autoscaler._private.util import validate_config

    config = ray_up_config(path)
    validate_config(config)
    with pytest.raises(Exception, match="max_worker"):
        validate_config(config | {"max_worker": 2})
    assert {"~/.ray/auth_token", "~/finsent-source"} == set(config["file_mounts"])
    assert any("cluster/ray_up/setup.sh cpu" in line for line in config["setup_commands"])


@pytest.mark.cost(4, "imports Ray's commands")
@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
def test_ray_up_starts_nodes_with_the_environment(path: Path) -> None:
    config = ray_up_config(path)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for line in config[key]:
            assert line.startswith(". ~/finsent-source/cluster/ray_up/node.sh && "), line
            check_ray_command(shlex.split(line)[shlex.split(line).index("ray") + 1 :])
        assert "ray start" in config[key][-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


@pytest.mark.cost(4, "imports Ray's commands")
def test_slurm_script_starts_ray_with_known_options() -> None:
    text = SBATCH.read_text("utf-8")
    own = {"nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "nodelist", "exclude", "input"}
    own |= {"job-name", "time", "output", "signal", "batch"}
    options = set(re.findall(r"(?<![\w$])--([a-z-]+)", text)) - own
    assert {"head", "block", "address", "min-worker-port"} <= options
    flags = {"head", "block"}
    check_ray_command(
        ["start", *(f"--{name}" if name in flags else f"--{name}=1" for name in sorted(options))]
    )
    assert "python -m cluster submit" in text
