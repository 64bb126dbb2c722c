"""Servers as processes: ours, and the peers that are installed."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.settings import BenchSettings
from finsent.errors import InputError
from finsent.files import read_json
from serve_app.launch.ports import free_port

log = logging.getLogger(__name__)

_READY = 180.0  # seconds
_PEERS = Path(__file__).with_name("peers") / "predecessor.py"


class DoesNotAnswer(InputError):  # noqa: N818 # it is said to users
    """A server did not start."""


@dataclass(frozen=True)
class Server:
    """How a server is started; `{port}` stands for its port."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    peer: bool = False
    path: str = "/predict"
    single: str = "single"  # name of the file of its bodies of one text
    probe: bytes = b'{"text": "Profit rose."}'  # answered with 200 when it is ready


def servers(settings: BenchSettings, model_dir: Path, work: Path) -> list[Server]:
    """All that can be started here, ours first.

    The peers' ONNX files are made here: their int8 need not pass our gate.
    """
    from finsent.export.onnx import write_fused_onnx, write_int8_onnx, write_onnx

    raw, fp32, int8 = work / "raw.onnx", work / "fp32.onnx", work / "int8.onnx"
    write_onnx(model_dir, raw)
    write_fused_onnx(raw, read_json(model_dir / "config.json"), fp32)
    write_int8_onnx(fp32, int8)
    tokenizer = str(model_dir / "tokenizer.json")
    overrides = [
        f"storage.root={settings.workspace.root}",
        f"registry.root={settings.workspace.registry_dir}",
        f"serve.model={settings.serve.model}",
        "serve.port={port}",
        "serve.watch_seconds=0",
        "serve.limits.queue_seconds=60",
        "serve.limits.timeout_ms=60000",
        f"engine.backend={settings.engine.backend}",
        f"engine.precision={settings.engine.precision}",
    ]
    found = [
        Server("finsent", [sys.executable, "-m", "ray_jobs.serve", *overrides]),
        Server("uvicorn", [sys.executable, "-m", "serve_app.plain", *overrides]),
    ]
    python = settings.bench.peers_python or sys.executable
    there = subprocess.run(
        [python, str(_PEERS), "--available"], capture_output=True, text=True, check=True
    ).stdout.split()
    folder = _PEERS.parent
    files = {"BENCH_MODEL": str(int8), "BENCH_TOKENIZER": tokenizer, "BENTOML_DO_NOT_TRACK": "1"}

    def peer(label: str, *arguments: str) -> Server:
        return Server(label, [python, *arguments], files, peer=True)

    peers = [
        ("predecessor", peer("predecessor fp32", str(_PEERS), str(fp32), tokenizer, "{port}")),
        ("predecessor", peer("predecessor int8", str(_PEERS), str(int8), tokenizer, "{port}")),
        (
            "litserve",
            peer("LitServe int8", str(folder / "litserve_api.py"), str(int8), tokenizer, "{port}"),
        ),
        (
            "bentoml",
            peer(
                "BentoML int8",
                "-m",
                "bentoml",
                "serve",
                "bentoml_service:Gateway",
                "--working-dir",
                str(folder),
                "--host",
                "127.0.0.1",
                "--port",
                "{port}",
            ),
        ),
        ("infinity", _infinity(python, model_dir, int8, work)),
    ]
    for package, server in peers:
        if package in there:
            found.append(server)
        else:
            log.warning("bench: %s is skipped: not installed for %s", server.name, python)
    return found


def _infinity(python: str, model_dir: Path, int8: Path, work: Path) -> Server:
    """infinity with its ONNX engine, which finds the same int8 file by its usual name."""
    folder = work / "infinity"
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_dir / name, folder / name)
    shutil.copy(int8, folder / "onnx" / "model_quantized.onnx")
    return Server(
        "infinity int8",
        [
            python,
            "-m",
            "infinity_emb.cli",
            "v2",
            "--model-id",
            str(folder),
            "--engine",
            "optimum",
            "--device",
            "cpu",
            "--batch-size",
            "32",
            "--host",
            "127.0.0.1",
            "--port",
            "{port}",
            "--served-model-name",
            "bench",
            "--log-level",
            "warning",
            "--no-model-warmup",
        ],  # with more tokens than the model takes
        {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"},
        peer=True,
        path="/classify",
        single="infinity",
        probe=b'{"model": "bench", "input": ["Profit rose."]}',
    )


@contextmanager
def running(server: Server, work: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """A started server: its address, its process, and the seconds until it answered.

    Its whole process group ends with the block: one that is left would answer for the next.
    """
    port = free_port("127.0.0.1")
    command = [part.replace("{port}", str(port)) for part in server.command]
    with (work / "server.log").open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, **server.environment},
        )
    try:
        address = f"http://127.0.0.1:{port}"
        seconds = _until_ready(address, process, server, work)
        yield address, process, seconds
    finally:
        for signum, patience in ((signal.SIGINT, 30), (signal.SIGKILL, 10)):
            try:
                os.killpg(process.pid, signum)
            except ProcessLookupError:
                break
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue


def _until_ready(
    address: str, process: subprocess.Popen[bytes], server: Server, work: Path
) -> float:
    started = time.perf_counter()
    request = urllib.request.Request(
        f"{address}{server.path}", server.probe, {"content-type": "application/json"}
    )
    while time.perf_counter() - started < _READY:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(request, timeout=10):
                return time.perf_counter() - started
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    tail = (work / "server.log").read_text(errors="replace")[-1000:]
    raise DoesNotAnswer(f"bench: {server.name} does not answer: {tail}")
