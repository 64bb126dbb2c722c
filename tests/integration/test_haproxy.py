"""HAProxy's files and its end, without a service; tests/e2e and tests/slow have one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ray.serve._private.haproxy import HAProxyApi, HAProxyConfig, get_haproxy_binary
from ray.serve.config import HTTPOptions, gRPCOptions

from finsent.adapters import ray_serve
from finsent.errors import InputError
from serve_app.launch import haproxy_watchdog, private_haproxy
from serve_app.launch.haproxy_launcher import change_config
from serve_app.launch.ports import LOOPBACK, Ports, free_port, listens
from serve_app.problems import Problem
from tests.commands import wait_until

PORTS = Ports(22_000)
HOLDER = """
import sys
from serve_app.launch.private_haproxy import private_haproxy
from serve_app.launch.ports import LOOPBACK, Ports, free_port, listens
with private_haproxy(Ports(22_000)) as environment:
    print(environment["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories of services are in the test's own."""
    monkeypatch.setattr(private_haproxy, "parent_directory", lambda: tmp_path)
    return tmp_path


def ray_config(folder: Path, host: str) -> Path:
    """What Ray itself writes."""
    config = HAProxyConfig(
        socket_path=f"{folder}/admin.sock",
        server_state_base=str(folder),
        server_state_file=f"{folder}/state",
        metrics_socket_path=f"{folder}/metrics.sock",
        http_options=HTTPOptions(host=host, port=8000),
        grpc_options=gRPCOptions(port=9000, grpc_servicer_functions=["a.b"]),
    )
    api = HAProxyApi(config, config_file_path=f"{folder}/haproxy.cfg")
    api._generate_config_file_internal()
    return Path(api.config_file_path)


@pytest.mark.parametrize(("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "*")])
def test_only_clients_ports_are_on_the_host(tmp_path: Path, host: str, bound: str) -> None:
    path = ray_config(tmp_path, host)
    text = change_config(path.read_text())
    binds = {line.split()[1] for line in text.splitlines() if line.split()[:1] == ["bind"]}
    assert binds == {f"{bound}:8000", f"{bound}:9000", "127.0.0.1:9101", "127.0.0.1:8404"}
    assert "admin.sock mode 600 level admin" in text
    assert "mode 666" not in text
    assert "status 404" not in text
    assert f'"title":"{Problem("not_ready", "").title}","status":503' in text
    path.write_text(text)
    checked = subprocess.run([get_haproxy_binary(), "-c", "-f", str(path)], capture_output=True)
    assert checked.returncode == 0, checked.stderr.decode()


def test_unknown_configuration_is_refused(tmp_path: Path) -> None:
    text = ray_config(tmp_path, "127.0.0.1").read_text()
    with pytest.raises(ValueError, match="unknown form"):
        change_config(text.replace("frontend prometheus", "frontend metrics"))


def test_files_are_private_and_go_with_the_service(parent: Path) -> None:
    with private_haproxy.private_haproxy(PORTS) as environment:
        [directory] = parent.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        paths = [value for name, value in environment.items() if not value[0].isdigit()]
        assert len(paths) == 6
        assert all(Path(path).is_relative_to(directory) for path in paths)
        assert private_haproxy.end_orphans() == []
        assert directory.is_dir(), "a service that lives keeps its directory"
    assert not directory.exists()


def test_directory_goes_when_the_service_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout
        directory = Path(service.stdout.readline().strip())
        assert (directory / private_haproxy.LOCK).is_file()
        service.kill()
    wait_until(lambda: not directory.exists(), 120, "the directory to go")


def sleeper(*arguments: str) -> subprocess.Popen[bytes]:
    code = "import time; print(flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


def test_only_own_orphans_end(parent: Path) -> None:
    """HAProxy of a service whose watchdog was killed, too; programs that got its process id."""
    directory = parent / f"{private_haproxy.PREFIX}killed"
    (directory / haproxy_watchdog.RECORDS).mkdir(parents=True)
    (directory / private_haproxy.LOCK).touch()
    config = str(directory / "haproxy.cfg")
    orphan, later, stranger = sleeper(config), sleeper(config), sleeper("other.cfg")
    try:
        for process, started in (
            (orphan, haproxy_watchdog.start_time(orphan.pid)),
            (later, "1"),
            (stranger, haproxy_watchdog.start_time(stranger.pid)),
        ):
            (directory / haproxy_watchdog.RECORDS / str(process.pid)).write_text(started)
        directory.chmod(0o770)
        assert private_haproxy.end_orphans() == [], "others may have written into it"
        directory.chmod(0o700)
        assert private_haproxy.end_orphans() == [orphan.pid]
        assert orphan.wait(60) != 0
        assert later.poll() is None
        assert stranger.poll() is None
        assert not directory.exists()
    finally:
        for process in (orphan, later, stranger):
            process.kill()
            process.communicate()


def test_directory_of_a_service_that_was_killed_before_its_lock_goes(parent: Path) -> None:
    starting, killed = (
        parent / f"{private_haproxy.PREFIX}{name}" for name in ("starting", "killed")
    )
    for directory in (starting, killed):
        directory.mkdir(mode=0o700)
        (directory / "new-lock").touch()
    hours_ago = time.time() - 2 * private_haproxy._LOCK_SECONDS
    os.utime(killed, (hours_ago, hours_ago))
    assert private_haproxy.end_orphans() == []
    assert [*parent.iterdir()] == [starting]


def test_haproxy_ends_with_the_process_that_started_it(parent: Path) -> None:
    """The launcher becomes its program, with a record, and dies when its parent is killed."""
    config = ray_config(parent, "127.0.0.1")
    records = parent / haproxy_watchdog.RECORDS
    records.mkdir()
    stale, removed = records / "1", records / "2"
    stale.write_text("0")  # of a process that has ended
    removed.symlink_to("nowhere")  # listed, and not there when it is read
    program = parent / "program"  # stands for HAProxy
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o700)
    command = [str(private_haproxy.write_launcher(parent, str(program))), "-f", str(config)]
    manager = f"import subprocess, sys; subprocess.Popen({command}); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", manager], stdin=subprocess.PIPE) as process:
        wait_until(lambda: bool({*records.glob("[0-9]*")} - {stale, removed}), 120, "a record")
        assert not stale.exists()
        removed.unlink()
        [record] = records.iterdir()
        started = record.read_text()
        assert haproxy_watchdog.start_time(int(record.name)) == started
        assert "mode 600" in config.read_text()
        process.kill()
    wait_until(
        lambda: haproxy_watchdog.start_time(int(record.name)) != started, 60, "HAProxy's end"
    )


def test_killed_haproxy_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the process that started it; one that Ray ends itself stays ended."""
    start = HAProxyApi._start_and_wait_for_haproxy
    monkeypatch.setattr(HAProxyApi, "_start_and_wait_for_haproxy", start)  # back at the end
    ray_serve.restart_killed_haproxy()

    async def lives(folder: Path) -> None:
        port = free_port(LOOPBACK)
        config = HAProxyConfig(
            socket_path=f"{folder}/admin.sock",
            server_state_base=str(folder),
            server_state_file=f"{folder}/state",
            metrics_enabled=False,
            stats_port=free_port(LOOPBACK),
            metrics_port=free_port(LOOPBACK),
            http_options=HTTPOptions(host=LOOPBACK, port=port),
        )
        api = HAProxyApi(config, config_file_path=f"{folder}/haproxy.cfg")
        await api.start()
        assert api._proc
        first_process = api._proc
        first_process.kill()
        async with asyncio.timeout(60):
            while api._proc is first_process or not listens(LOOPBACK, port):
                await asyncio.sleep(0.02)
        await api.reload()  # Ray can change the configuration of the new one
        second = api._proc
        await api.stop()
        await second.wait()
        await asyncio.gather(*ray_serve.restart_tasks)
        assert api._proc is None
        assert not listens(LOOPBACK, port)

    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        asyncio.run(lives(Path(folder)))


def test_program_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/no/haproxy")
    with (
        pytest.raises(InputError, match=r"serve\.fast=true: no HAProxy"),
        private_haproxy.private_haproxy(PORTS),
    ):
        pass
