"""Processes of jobs: streams, closed pipes, imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.jobs import JOBS, ROOT

pytestmark = pytest.mark.cost(8, "starts processes that import every job")


NOISY = """
import os, subprocess, sys
from ray_jobs._cli import Job, main
def run(call):
    print("a library prints", flush=True)
    sys.stdout.write("without a line end")
    os.write(1, b"from C")
    subprocess.run(["echo", "a child prints"], check=True)
    return {"answer": 42}
main(Job("probe", "", "", (), run, keeps_run=False), [])
"""


def test_stdout_holds_the_result_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISY], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["answer"] == 42
    assert done.stdout.count("\n") == 1
    for words in ("a library prints", "without a line end", "from C", "a child prints"):
        assert words in done.stderr


@pytest.mark.parametrize("module", ["ray_jobs.train", "ray_jobs"])
def test_closed_pipe_is_no_error(module: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "argv", "words"),
    [
        ("train", ["train.epohcs=2"], "Did you mean 'train.epochs'?"),
        ("classify", ["model.max_length=7", "Sales rose"], "model.max_length=7"),
    ],
)
def test_process_reports_a_bad_setting_in_one_line(
    tmp_path: Path, name: str, argv: list[str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"ray_jobs.{name}", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_inference_and_evaluation_load_no_ray() -> None:
    modules = [
        "finsent.inference.engine",
        "finsent.evaluation.evaluate",
        "finsent.evaluation.report",
        "finsent.evaluation.behavior.run",
        "finsent.evaluation.slices",
        "finsent.training.standalone",
        *(f"ray_jobs.{name}" for name in JOBS),
    ]
    code = f"import {', '.join(modules)}, sys; sys.exit('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("modules", "rooms"),
    [
        (
            "finsent.inference.engine, finsent.inference.backends.onnx",
            ["adoption", "data", "evaluation", "export", "registry", "scoring", "training"],
        ),
        (
            "serve_app.service",
            ["adoption", "data", "evaluation", "export", "scoring", "training"],
        ),
        (
            "serve_app.graph",
            ["data.ingest", "data.rows", "data.versions", "evaluation", "export", "training"],
        ),
    ],
)
def test_serving_loads_no_room_that_makes_models(modules: str, rooms: list[str]) -> None:
    """Settings of such rooms (`config`) may be loaded: one type holds all settings."""
    code = f"import {modules}, json, sys; print(json.dumps(sorted(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert process.returncode == 0, process.stderr
    loaded = [name for name in json.loads(process.stdout) if not name.endswith(".config")]
    prefixes = tuple(f"finsent.{room}." for room in rooms)
    assert [name for name in loaded if name.startswith(prefixes)] == []
