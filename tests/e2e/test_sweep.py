"""Sweeps as users run them: ended at any point, they go on; what is wrong is said before."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.e2e.conftest import (
    PROJECT,
    Done,
    alive,
    descendants,
    environment,
    run_driver,
    wait_until,
)

SWEEP = (
    "configs/debug.yaml", "configs/sweep.yaml", "storage.root=out", "train.epochs=5",
    "sweep.trials=3", "sweep.scheduler=none", "sweep.verify_best=1", "sweep.verify_seeds=1",
    "run.name=found",
)  # fmt: skip
SPACE = 'sweep.space={"train.dropout": {"uniform": [0.0, 0.5]}}'


@pytest.fixture(scope="module")
def ingested(job: Callable[..., Done], tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("sweeps")
    (project / "configs").symlink_to(PROJECT / "configs")
    done = job("ingest", "configs/debug.yaml", "storage.root=out", cwd=project)
    assert done.code == 0, done.err
    return project


def start(project: Path, *more: str) -> subprocess.Popen[str]:
    env = environment() | {"WANDB_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.sweep", *SWEEP, *more], cwd=project, env=env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def events(run_dir: Path) -> list[dict[str, Any]]:
    file = run_dir / "trials.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]


def epochs_after_an_end(run_dir: Path) -> bool:
    """A trial has ended, and another one, that still runs, has a checkpoint."""
    found = events(run_dir)
    ended = {e["trial"] for e in found if e["event"] == "end"}
    running = {e["trial"] for e in found if e["event"] == "epoch" and e["epoch"] >= 2} - ended
    return bool(ended and running)


def named(processes: set[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.add(process.name())
    return {name for name in found if "RuntimeEnv" not in name}


@pytest.mark.timeout(1200)
def test_a_killed_sweep_goes_on(ingested: Path) -> None:
    run_dir = ingested / "out/runs/found"
    process = start(ingested, "sweep.concurrent=1")
    wait_until(
        lambda: epochs_after_an_end(run_dir) or process.poll() is not None, 400, "a second trial"
    )
    assert process.poll() is None, process.communicate()
    children = descendants(psutil.Process(process.pid))
    process.kill()
    process.communicate()
    # But one: Ray's agent tries for a minute to tell the dead of their death.
    wait_until(lambda: not named(alive(children)), 90, "Ray's processes to end")
    before = events(run_dir)
    ended = {e["trial"] for e in before if e["event"] == "end"}
    interrupted = {e["trial"] for e in before if e["event"] == "epoch"} - ended
    [number] = interrupted
    reached = max(e["epoch"] for e in before if e["event"] == "epoch" and e["trial"] == number)

    process = start(ingested)
    out, err = process.communicate(timeout=700)
    assert process.returncode == 0, err[-4000:]
    after = events(run_dir)[len(before) :]
    # What had ended is not run again; what was interrupted goes on after its last checkpoint.
    assert not ended & {e["trial"] for e in after}
    went_on = [e for e in after if e["trial"] == number]
    assert went_on[0]["source"] == "resumed"
    assert went_on[0]["params"] == next(e for e in before if e["trial"] == number)["params"]
    assert [e["epoch"] for e in went_on if e["event"] == "epoch"] == [*range(reached + 1, 6)]
    journal = (run_dir / "trials" / f"{number:04d}" / "metrics.jsonl").read_text().splitlines()
    epochs = [line["epoch"] for line in map(json.loads, journal) if line["kind"] == "epoch"]
    assert epochs == [1, 2, 3, 4, 5]
    assert {e["trial"] for e in events(run_dir)} == {0, 1, 2}
    # The answer.
    result = json.loads(out.splitlines()[-1])
    assert result["trials"] == {"finished": 3}
    assert result["verified"]["test"]["rows"] > 100
    assert result["verified"]["luck"] is not None
    assert (run_dir / "sweep.html").is_file() and (run_dir / "evaluation/report.html").is_file()
    best = yaml.safe_load((run_dir / "best.yaml").read_text())
    assert best["train"]["num_workers"] == 1 and best.keys() == {"data", "model", "train"}
    states = sqlite3.connect(run_dir / "study.db").execute("SELECT state FROM trials").fetchall()
    assert states == [("COMPLETE",)] * 3


def test_sigterm_leaves_the_best_so_far(ingested: Path) -> None:
    run_dir = ingested / "out/runs/stopped"
    process = start(ingested, "run.name=stopped", "train.epochs=50")
    wait_until(
        lambda: any(e["event"] == "epoch" for e in events(run_dir)) or process.poll() is not None,
        240, "an epoch",
    )  # fmt: skip
    children = descendants(psutil.Process(process.pid))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 128 + signal.SIGTERM, err[-4000:]
    assert out == "" and "Traceback" not in err, err[-4000:]
    assert "Best so far" in err and "run.name=stopped goes on" in err
    wait_until(lambda: not alive(children), 60, "Ray's processes to end")
    best = yaml.safe_load((run_dir / "best.yaml").read_text())
    assert best["train"]["epochs"] == 50
    last = {e["trial"]: e for e in events(run_dir)}
    assert {e["status"] for e in last.values()} == {"interrupted"}
    assert (run_dir / "sweep.html").is_file() or "no trial has ended" in err


def test_a_dry_run_writes_nothing(ingested: Path, job: Callable[..., Done]) -> None:
    done = job("sweep", *SWEEP, "--dry-run", "run.name=dry", cwd=ingested)
    assert done.code == 0, done.err
    assert len(done.result["configs"]) == 10 and done.result["trial_seconds"] > 0
    assert "rows/s" in done.err
    assert not (ingested / "out/runs/dry").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (['sweep.space={"train.dropuot": {"uniform": [0.0, 0.5]}}'], ["train.dropuot", "dropout"]),
        (['sweep.space={"train.dropout": {"uniform": [0.5, 0.1]}}'], ["lower bound above"]),
        (['sweep.space={"train.dropout": {"uniform": [0.1, 0.1]}}'], ["is empty"]),
        (['sweep.space={"train.dropout": {"uniform": [0.0, 7.0]}}'], ["train.dropout=7.0"]),
        ([], ["sweep.space: is empty"]),
        ([SPACE, "metric=bleu"], ["metric='bleu'", "macro_f1"]),
        ([SPACE, "train.num_workers=64", "train.batch_size=64"], ["train.num_workers=64", "CPUs"]),
        ([SPACE, "storage=postgresql://nobody@127.0.0.1:1/none"], ["sweep.storage="]),
        ([SPACE, "storage=sqlite:///locked.db"], ["sweep.storage=", "locked"]),
        ([SPACE, "warm_start=[nowhere]"], ["nowhere", "not a sweep"]),
        ([SPACE, "nonsense"], ["nonsense"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_any_trial(
    arguments: list[str], said: list[str], ingested: Path, job: Callable[..., Done]
) -> None:
    holder = sqlite3.connect(ingested / "locked.db")
    holder.execute("BEGIN EXCLUSIVE")
    name = f"bad-{abs(hash(tuple(arguments)))}"
    done = job(
        "sweep", "configs/debug.yaml", "storage.root=out", f"run.name={name}", *arguments,
        cwd=ingested,
    )  # fmt: skip
    holder.close()
    assert done.code == 2, done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert all(part in line for part in said), line
    assert "Traceback" not in done.err
    assert not (ingested / "out/runs" / name / "trials.jsonl").exists()


@pytest.mark.timeout(700)
def test_losing_a_node_costs_only_its_trials(tmp_path: Path) -> None:
    done = run_driver("tests.e2e.sweep_driver", tmp_path, timeout=650)
    assert done.code == 0, done.err[-4000:]
    found = done.result
    assert found["statuses"] == ["finished"] * 2, found
    for epochs in found["epochs"]:
        assert epochs == [*range(1, found["wanted"] + 1)]
    assert found["untouched"] == 1, "the other trial was not started again"
