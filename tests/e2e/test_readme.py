"""A smoke of the commands of README and docs, in order, with a tiny backbone and few rows.

tests/slow/test_readme.py runs them as written, with the real backbone, in a shell.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import PROJECT, invoke_job
from tests.integration.cluster import shared_ray
from tests.readme import (
    README,
    commands,
    notebook_code,
    run_in_shell,
    sample_rows,
    write_csv,
    write_demo,
)

SMALL = {
    "sources: [sample]": "sources: [some.csv]",
    "backbone: demo": "backbone: tiny",
    "epochs: 5": "epochs: 1\n  num_workers: 1",
}
# Of the commands: a training that Ray Train starts costs 20 CPU seconds, and 6 more with a second
# worker. tests/e2e/test_cluster.py trains with two.
SMALLER = {
    "model.backbone=demo": "model.backbone=tiny train.epochs=1 train.num_workers=1 "
    "export.openvino=false",
    "sweep.trials=4 sweep.verify_best=1": "sweep.trials=1 sweep.verify_best=0",
    "name=theirs": "name=theirs export.openvino=false",
}


def outside_make() -> dict[str, str]:
    """`make test` tells its children that they run inside make; a user's shell does not."""
    return {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def test_readme_lists_every_job() -> None:
    jobs = {p.stem for p in (PROJECT / "ray_jobs").glob("[a-z]*.py")}
    assert jobs == set(re.findall(r"^\| \[`finsent ([a-z]+)`\]", README, flags=re.M))


def test_make_help_is_true() -> None:
    printed = subprocess.run(
        ["make", "help"],
        cwd=PROJECT,
        env=outside_make(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    listed = {line.split()[0] for line in printed.splitlines()}
    assert listed == set(re.findall(r"^([a-z-]+):", makefile, flags=re.M))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= listed


def run_command(command: str) -> dict[str, Any] | None:
    """Run a command; jobs in this process where no shell is needed.

    Returns:
        the JSON object that it prints, if any.
    """
    job, *arguments = shlex.split(command.removeprefix("python -m ray_jobs."))
    if command.startswith("python -m ray_jobs.") and not {"|", "||"} & {*arguments}:
        finished = invoke_job(job, *arguments)
        assert finished.code == 0, f"{command}\n{finished.out}\n{finished.err}"
        return finished.result
    return run_in_shell(command)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One Ray for all commands, as a job's own would be."""
    with shared_ray():
        yield


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("local_ray")
@pytest.mark.cost(150, "eight jobs, a pipeline and a sweep among them")
def test_the_commands_work_with_a_tiny_backbone(project: Path) -> None:
    write_demo(project, SMALL)
    rows = sample_rows()
    write_csv(project / "some.csv", rows[:400])
    write_csv(project / "news.csv", rows[:150])
    results = [run_command(command) for command in commands(SMALLER)]
    by_job = {result["job"]: result for result in results if result and "job" in result}
    trained = [result for result in results if result and result.get("job") == "train"]
    assert by_job["ingest"]["counts"]["kept"] > 300
    assert trained[-1]["dataset_version"] == by_job["ingest"]["dataset_version"]
    assert by_job["sweep"]["trials"] == {"finished": 1}
    [analyzed] = [result for result in results if result and "job" not in result]
    assert analyzed["trials"] == 1 and (project / analyzed["page"]).is_file()
    assert "majority" in by_job["evaluate"]["baselines"]
    assert by_job["publish"]["model_version"] in by_job["registry"]["aliases"].values()
    assert by_job["pipeline"]["model_version"] != by_job["publish"]["model_version"]
    assert by_job["compare"]["verdict"] in ("better", "worse", "no difference")
    assert by_job["compare"]["a"] != by_job["compare"]["b"]
    assert by_job["adopt"]["max_difference"] <= 1e-5
    assert by_job["adopt"]["exports"]["onnxruntime-fp32"]["refused"] is None
    assert len(by_job["classify"]["predictions"]) == 1
    assert by_job["export"]["exports"]["onnxruntime-fp32"]["refused"] is None
    assert by_job["predict"]["rows"] == 149
    assert sum(by_job["predict"]["labels"].values()) == 149
    assert (project / "scored" / "news.csv.csv").is_file()
    assert by_job["serve"]["role"] == "predict"
    evaluation = project / "artifacts/runs/first/evaluation"
    assert (evaluation / "pictures/confusion.png").stat().st_size > 5_000
    assert "behavior" in (evaluation / "report.html").read_text().lower()
    for name in ("config.json", "environment.json", "result.json"):
        assert (project / "artifacts/runs/first" / name).is_file()
    names: dict[str, Any] = {}
    for cell in notebook_code("examples/quickstart.ipynb"):
        exec(cell, names)
    assert names["champion"].version == names["registry"].aliases()["champion"]
    assert len(names["rows"]) == names["dataset"].rows("test")
