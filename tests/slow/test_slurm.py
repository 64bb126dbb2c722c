"""The sbatch script trains and publishes on a one-node Slurm, which the test starts.

`tests/unit/test_deploy_files.py` checks the script without Slurm.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from cluster.nodes import free_ports
from tests.commands import PROJECT, environment, wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")  # Debian: slurm-wlm, munge
START_SECONDS = 60.0
JOB_SECONDS = 280
SCRIPT = "cluster/slurm/finsent.sbatch"


def slurm_configuration(directory: Path, host: str) -> str:
    """Return the configuration of one node, with ids of jobs that no other Slurm here uses."""
    controller_port, node_port = free_ports(2)
    return f"""
ClusterName=finsent
FirstJobId={os.getpid()}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
SlurmUser=root
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def start_daemon(stack: ExitStack, directory: Path, command: Sequence[str]) -> None:
    log = stack.enter_context((directory / f"{command[0]}.log").open("wb"))
    process = subprocess.Popen(command, stdout=log, stderr=log)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of Slurm's commands."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}")
    directory = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (directory / name).mkdir()
    key = directory / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    host = socket.gethostname().partition(".")[0]
    configuration = directory / "slurm.conf"
    configuration.write_text(slurm_configuration(directory, host))
    files = [f"--{name}-file={directory}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    with ExitStack() as stack:
        munge = ["munged", "--foreground", "--force", f"--socket={directory}/munge.socket", *files]
        start_daemon(stack, directory, munge)
        socket_file = directory / "munge.socket"
        wait_until(socket_file.exists, START_SECONDS, f"munged's socket, see {directory}")
        start_daemon(stack, directory, ["slurmctld", "-D", "-f", str(configuration)])
        start_daemon(stack, directory, ["slurmd", "-D", "-f", str(configuration), "-N", host])
        env = environment() | {"SLURM_CONF": str(configuration)}
        wait_until(lambda: "idle" in node_states(env), START_SECONDS, f"a node, see {directory}")
        yield env


def node_states(env: dict[str, str]) -> str:
    command = ["sinfo", "--noheader", "--format=%t"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout


def submit(env: dict[str, str], log: Path, job: str, *arguments: str) -> tuple[int, Path]:
    """Run the script as a Slurm job on all cores of one node.

    Returns:
        the exit code, and the directory of Ray on the node.
    """
    command = ["sbatch", "--wait", "--parsable", "--nodes=1", f"--cpus-per-task={os.cpu_count()}"]
    variables = {
        "JOB": job,
        "ARGS": " ".join(arguments),
        "FINSENT_VENV": str(Path(sys.executable).parents[1]),
    }
    finished = subprocess.run(
        [*command, f"--output={log}", SCRIPT],
        cwd=PROJECT,
        env=env | variables,
        stdout=subprocess.PIPE,
        text=True,
        timeout=JOB_SECONDS,
        check=False,
    )
    return finished.returncode, Path(f"/tmp/finsent-slurm-{finished.stdout.strip()}")


def test_job_publishes_and_cleans_up(slurm: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    storage = tmp_path / "storage"
    arguments = ("debug", "run.name=slurm", "train.num_workers=1", "export.openvino=false")
    code, directory = submit(slurm, log, "pipeline", *arguments, f"storage.root={storage}")
    assert code == 0, log.read_text()
    assert list((storage / "registry").rglob("model.safetensors"))
    assert f"--temp-dir={directory}" not in running_commands()
    assert not directory.exists()


def test_exit_code_is_the_jobs(slurm: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    code, directory = submit(slurm, log, "train", "debug", "train.epoch=1")
    assert code == 2, log.read_text()
    assert "train.epochs" in log.read_text()
    assert not directory.exists()


def running_commands() -> str:
    processes = psutil.process_iter(["cmdline"])
    return "\n".join(" ".join(process.info["cmdline"] or ()) for process in processes)
