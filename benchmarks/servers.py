"""Servers as processes: finsent's, and those of the installed peers."""

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

START_SECONDS = 180.0
STOP_PATIENCE = ((signal.SIGINT, 30), (signal.SIGKILL, 10))  # seconds to wait after each signal
_PEERS = Path(__file__).with_name("peers")
_PREDECESSOR = _PEERS / "predecessor.py"


class ServerDidNotStartError(InputError):
    """A server did not start."""


@dataclass(frozen=True)
class Server:
    """How a server is started. `{port}` stands for its port."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    is_peer: bool = False
    path: str = "/predict"
    bodies: str = "single"  # name of the file with request bodies of one text each
    first_body: bytes = b'{"text": "Profit rose."}'  # a server that answers it with 200 is ready


@dataclass(frozen=True)
class PeerFiles:
    """The files that peers serve. Peers' int8 exports need not pass the gate of exports."""

    fp32: Path
    int8: Path
    tokenizer: Path

    @classmethod
    def write(cls, model_dir: Path, work: Path) -> PeerFiles:
        """Export a model to ONNX."""
        from finsent.export.onnx import write_fused_onnx, write_int8_onnx, write_onnx

        raw, fp32, int8 = work / "raw.onnx", work / "fp32.onnx", work / "int8.onnx"
        write_onnx(model_dir, raw)
        write_fused_onnx(raw, read_json(model_dir / "config.json"), fp32)
        write_int8_onnx(fp32, int8)
        return cls(fp32, int8, model_dir / "tokenizer.json")


def servers(settings: BenchSettings, model_dir: Path, work: Path) -> list[Server]:
    """Return the servers that can be started, finsent's first. Writes the peers' ONNX files."""
    python = settings.bench.peers_python or sys.executable
    peers = _peers(python, model_dir, PeerFiles.write(model_dir, work), work)
    installed = subprocess.run(
        [python, str(_PREDECESSOR), "--available"], capture_output=True, text=True, check=True
    ).stdout.split()
    for package, peer in peers:
        if package not in installed:
            log.warning("benchmarks: %s is skipped: not installed for %s", peer.name, python)
    available = [peer for package, peer in peers if package in installed]
    return [*_own_servers(settings), *available]


def own_overrides(settings: BenchSettings) -> list[str]:
    """Return the settings of the service under load; `{port}` stands for its port."""
    return [
        f"storage.root={settings.workspace.root.address}",
        f"registry.root={settings.workspace.registry.address}",
        f"serve.model={settings.serve.model}",
        "serve.port={port}",
        "serve.watch_seconds=0",
        "serve.limits.queue_seconds=60",
        "serve.limits.timeout_ms=60000",
        f"engine.backend={settings.engine.backend}",
        f"engine.precision={settings.engine.precision}",
    ]


def _own_servers(settings: BenchSettings) -> list[Server]:
    overrides = own_overrides(settings)
    return [
        Server("finsent", [sys.executable, "-m", "ray_jobs.serve", *overrides]),
        Server("uvicorn", [sys.executable, "-m", "serve_app.plain", *overrides]),
    ]


def _peers(python: str, model_dir: Path, files: PeerFiles, work: Path) -> list[tuple[str, Server]]:
    """Return all peers, each with its key in `predecessor.PACKAGES`."""
    fp32, int8, tokenizer = str(files.fp32), str(files.int8), str(files.tokenizer)
    environment = {
        "BENCH_MODEL": int8,
        "BENCH_TOKENIZER": tokenizer,
        "BENTOML_DO_NOT_TRACK": "1",
    }

    def peer(label: str, *arguments: str) -> Server:
        return Server(label, [python, *arguments], environment, is_peer=True)

    predecessor, litserve = str(_PREDECESSOR), str(_PEERS / "litserve_api.py")
    bentoml = ["-m", "bentoml", "serve", "bentoml_service:Gateway", "--working-dir", str(_PEERS)]
    address = ["--host", "127.0.0.1", "--port", "{port}"]
    return [
        ("predecessor", peer("predecessor fp32", predecessor, fp32, tokenizer, "{port}")),
        ("predecessor", peer("predecessor int8", predecessor, int8, tokenizer, "{port}")),
        ("litserve", peer("LitServe int8", litserve, int8, tokenizer, "{port}")),
        ("bentoml", peer("BentoML int8", *bentoml, *address)),
        ("infinity", _infinity(python, model_dir, files.int8, work)),
    ]


def _infinity(python: str, model_dir: Path, int8: Path, work: Path) -> Server:
    """Return infinity with its ONNX engine, on a folder with the int8 file by its usual name."""
    folder = work / "infinity"
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_dir / name, folder / name)
    shutil.copy(int8, folder / "onnx" / "model_quantized.onnx")
    options = {
        "--model-id": str(folder),
        "--engine": "optimum",
        "--device": "cpu",
        "--batch-size": "32",
        "--host": "127.0.0.1",
        "--port": "{port}",
        "--served-model-name": "bench",
        "--log-level": "warning",
    }
    arguments = [word for option in options.items() for word in option]
    # infinity's warm-up sends more tokens than the model accepts.
    command = [python, "-m", "infinity_emb.cli", "v2", *arguments, "--no-model-warmup"]
    return Server(
        "infinity int8",
        command,
        {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"},
        is_peer=True,
        path="/classify",
        bodies="infinity",
        first_body=b'{"model": "bench", "input": ["Profit rose."]}',
    )


@contextmanager
def running(server: Server, work: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server, yield its address and its process, and end its process group.

    A process that remained would answer for the next server.
    """
    port = free_port("127.0.0.1")
    command = [word.replace("{port}", str(port)) for word in server.command]
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
        _wait_until_ready(address, process, server, work)
        yield address, process
    finally:
        for signal_number, patience in STOP_PATIENCE:
            try:
                os.killpg(process.pid, signal_number)
            except ProcessLookupError:
                break
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue


def _wait_until_ready(
    address: str, process: subprocess.Popen[bytes], server: Server, work: Path
) -> None:
    start = time.perf_counter()
    request = urllib.request.Request(
        f"{address}{server.path}", server.first_body, {"content-type": "application/json"}
    )
    while time.perf_counter() - start < START_SECONDS and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    log_end = (work / "server.log").read_text(errors="replace")[-1000:]
    raise ServerDidNotStartError(
        f"benchmarks: {server.name}: did not start. Its log ends: {log_end}"
    )
