"""The service on a cluster: where it says that it listens, it listens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import psutil

from serve_app.proto import sentiment_pb2 as pb
from serve_app.proto import sentiment_pb2_grpc
from tests.commands import check_refused, run_job
from tests.e2e.conftest import Cluster

END_SERVE = "import ray, ray.serve; ray.init(); ray.serve.shutdown()"


def listening_on(port: int) -> set[str]:
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
    }


def test_ports_are_those_of_the_serve_that_runs(
    cluster: Cluster, served_root: Path, tmp_path: Path
) -> None:
    arguments = (f"storage.root={served_root}", "engine.threads=1", "engine.precision=fp32")
    env = cluster.joining
    try:
        first_run = run_job(
            "serve", *arguments, "port=0", "serve.grpc_port=0", cwd=tmp_path, env=env
        )
        assert first_run.code == 0, first_run.err
        address, grpc_address = first_run.result["address"], first_run.result["grpc_address"]
        port, grpc_port = (
            int(address_of_port.rpartition(":")[2]) for address_of_port in (address, grpc_address)
        )
        assert listening_on(port) == listening_on(grpc_port) == {"127.0.0.1"}
        prediction = httpx.post(f"{address}/predict", json={"text": "Up"}, timeout=30).json()
        with grpc.insecure_channel(grpc_address) as channel:
            answer = sentiment_pb2_grpc.SentimentStub(channel).Predict(
                pb.PredictRequest(text="Up"), timeout=30
            )
        assert pb.Label.Name(answer.prediction.label) == prediction["label"].upper()

        # Any other HTTP port would be refused first: tests/unit/test_running_serve.py.
        other = f"serve.grpc_port={grpc_port + 1}"
        refused = run_job("serve", *arguments, f"port={port}", other, cwd=tmp_path, env=env)
        check_refused(refused, [other, f"Set serve.grpc_port={grpc_port}"])
    finally:
        subprocess.run([sys.executable, "-c", END_SERVE], env=env, timeout=120, check=True)
