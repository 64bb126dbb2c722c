"""The state of a job with several steps, by a fake clock."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finsent.files import write_json
from finsent.steps import Past, Steps, past_run

NAMES = ("ingest", "train", "publish")
RECIPE: dict[str, Any] = {name: {} for name in ("data", "model", "train", "evaluate", "export")}


def lines(caplog: pytest.LogCaptureFixture, past: Past | None) -> list[str]:
    times: Iterator[float] = iter([0.0, 0.2, 7.4, 187.4, 190.0])
    steps = Steps(NAMES, past, lambda: next(times))
    with caplog.at_level(logging.INFO):
        titles = [steps.begin(name) for name in NAMES]
        steps.finish()
    assert titles == ["[1/3] ingest", "[2/3] train", "[3/3] publish"]
    assert steps.seconds == {"ingest": 7.2, "train": 180.0, "publish": 2.6}
    return caplog.messages


def test_each_step_logs_its_name_and_the_elapsed_time(caplog: pytest.LogCaptureFixture) -> None:
    assert lines(caplog, None) == [
        "[1/3] ingest",
        "[2/3] train: 0:07 so far",
        "[3/3] publish: 3:07 so far",
        "[3/3] done after 3:10",
    ]


def test_an_earlier_run_gives_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    past = Past("monday", {"ingest": 10.0, "train": 200.0, "publish": 5.0})
    assert lines(caplog, past) == [
        "[1/3] ingest: about 3:35 left, as in run monday",
        "[2/3] train: 0:07 so far; about 3:25 left, as in run monday",
        "[3/3] publish: 3:07 so far; about 0:05 left, as in run monday",
        "[3/3] done after 3:10",
    ]


def run(runs: Path, name: str, trained: float, job: str = "pipeline", **changed: Any) -> None:
    (runs / name).mkdir(parents=True)
    write_json(runs / name / "config.json", {"job": job, **RECIPE, **changed})
    seconds = {"ingest": 9.0, "train": trained}
    write_json(runs / name / "result.json", {"job": job, "step_seconds": seconds})


def test_the_longest_run_with_the_same_settings_is_the_base(tmp_path: Path) -> None:
    run(tmp_path, "first", 100.0)
    run(tmp_path, "resumed", 2.0)
    run(tmp_path, "other", 500.0, train={"epochs": 9})
    run(tmp_path, "job", 500.0, job="train")
    run(tmp_path, "torn", 500.0)
    (tmp_path / "torn" / "result.json").write_text("{")
    (tmp_path / "unfinished").mkdir()
    base = past_run(tmp_path, "pipeline", RECIPE)
    assert base == Past("first", {"ingest": 9.0, "train": 100.0})
    assert past_run(tmp_path, "pipeline", RECIPE | {"data": {"name": "new"}}) is None
    assert past_run(tmp_path / "absent", "pipeline", RECIPE) is None


def test_only_the_newest_runs_are_read(tmp_path: Path) -> None:
    for number in range(22):
        run(tmp_path, f"r{number:02}", 100.0 - number)
        file = tmp_path / f"r{number:02}" / "result.json"
        os.utime(file, (number, number))
    base = past_run(tmp_path, "pipeline", RECIPE)
    assert base is not None
    assert base.name == "r02"
