"""Sweeps that signals end: the same command resumes them.

tests/integration/test_sweep.py resumes a sweep of stub trials.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.commands import PROJECT, alive, descendants, run_job, start_job, wait_until

SWEEP = (
    "configs/debug.yaml",
    "configs/sweep.yaml",
    "storage.root=out",
    "train.epochs=5",
    "sweep.trials=2",
    "sweep.scheduler=none",
    "sweep.verify_best=1",
    "sweep.verify_seeds=1",
    "run.name=found",
)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("sweeps")
    (project / "configs").symlink_to(PROJECT / "configs")
    done = run_job("ingest", "configs/debug.yaml", "storage.root=out", cwd=project)
    assert done.code == 0, done.err
    return project


def start(project: Path, *more: str) -> subprocess.Popen[str]:
    return start_job("sweep", *SWEEP, *more, cwd=project)


def events(run_dir: Path) -> list[dict[str, Any]]:
    file = run_dir / "trials.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]


def epochs_after_an_end(run_dir: Path) -> bool:
    """Return whether a trial has ended and another trial, which still runs, has a checkpoint."""
    recorded = events(run_dir)
    ended = {e["trial"] for e in recorded if e["event"] == "end"}
    with_checkpoint = {e["trial"] for e in recorded if e["event"] == "epoch" and e["epoch"] >= 2}
    running = with_checkpoint - ended
    return bool(ended and running)


def process_names(processes: set[psutil.Process]) -> set[str]:
    names = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            names.add(process.name())
    return {name for name in names if "RuntimeEnv" not in name}


@pytest.mark.timeout(1200)
def test_a_killed_sweep_resumes(ingested: Path) -> None:
    run_dir = ingested / "out/runs/found"
    process = start(ingested, "sweep.concurrent=1")
    wait_until(
        lambda: epochs_after_an_end(run_dir) or process.poll() is not None, 400, "a second trial"
    )
    assert process.poll() is None, process.communicate()
    children = descendants(psutil.Process(process.pid))
    process.kill()
    process.communicate()
    # All but Ray's agent, which notifies dead processes for a minute.
    wait_until(lambda: not process_names(alive(children)), 90, "Ray's processes to end")
    before = events(run_dir)
    ended = {e["trial"] for e in before if e["event"] == "end"}
    interrupted = {e["trial"] for e in before if e["event"] == "epoch"} - ended
    [number] = interrupted
    last_epoch = max(e["epoch"] for e in before if e["event"] == "epoch" and e["trial"] == number)

    process = start(ingested)
    out, err = process.communicate(timeout=700)
    assert process.returncode == 0, err[-4000:]
    after = events(run_dir)[len(before) :]
    # Ended trials do not run again; the interrupted trial resumes after its last checkpoint.
    assert not ended & {e["trial"] for e in after}
    resumed = [e for e in after if e["trial"] == number]
    assert resumed[0]["source"] == "resumed"
    assert resumed[0]["params"] == next(e for e in before if e["trial"] == number)["params"]
    assert [e["epoch"] for e in resumed if e["event"] == "epoch"] == [*range(last_epoch + 1, 6)]
    journal = (run_dir / "trials" / f"{number:04d}" / "metrics.jsonl").read_text().splitlines()
    epochs = [line["epoch"] for line in map(json.loads, journal) if line["kind"] == "epoch"]
    assert epochs == [1, 2, 3, 4, 5]
    assert {e["trial"] for e in events(run_dir)} == {0, 1}
    result = json.loads(out.splitlines()[-1])
    assert result["trials"] == {"finished": 2}
    assert result["verified"]["test"]["rows"] > 100
    assert result["verified"]["luck"] is not None
    assert (run_dir / "sweep.html").is_file() and (run_dir / "evaluation/report.html").is_file()
    best = yaml.safe_load((run_dir / "best.yaml").read_text())
    assert best["train"]["num_workers"] == 1 and best.keys() == {"data", "model", "train"}
    states = sqlite3.connect(run_dir / "study.db").execute("SELECT state FROM trials").fetchall()
    assert states == [("COMPLETE",)] * 2


def test_sigterm_writes_the_best_so_far(ingested: Path) -> None:
    run_dir = ingested / "out/runs/stopped"
    process = start(ingested, "run.name=stopped", "train.epochs=50")
    wait_until(
        lambda: any(e["event"] == "epoch" for e in events(run_dir)) or process.poll() is not None,
        240,
        "an epoch",
    )
    children = descendants(psutil.Process(process.pid))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 128 + signal.SIGTERM, err[-4000:]
    assert out == "" and "Traceback" not in err, err[-4000:]
    assert "Best so far" in err and "same command with run.name=stopped" in err
    wait_until(lambda: not alive(children), 60, "Ray's processes to end")
    best = yaml.safe_load((run_dir / "best.yaml").read_text())
    assert best["train"]["epochs"] == 50
    last = {e["trial"]: e for e in events(run_dir)}
    assert {e["status"] for e in last.values()} == {"interrupted"}
    assert (run_dir / "sweep.html").is_file() or "no trial has ended" in err
