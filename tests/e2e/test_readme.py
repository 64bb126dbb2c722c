"""The README's commands work as written, one after the other, in a new directory."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, environment

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def outside_make() -> dict[str, str]:
    """`make test` tells its children that they run inside make; a user's shell does not."""
    return {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and line != ". .venv/bin/activate"]


def test_every_job_has_a_command() -> None:
    jobs = {p.stem for p in (PROJECT / "ray_jobs").glob("[a-z]*.py")}
    assert jobs == set(re.findall(r"python -m ray_jobs\.([a-z]+)", README))


def test_make_help_is_true() -> None:
    made = subprocess.run(
        ["make", "help"],
        cwd=PROJECT,
        env=outside_make(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    listed = {line.split()[0] for line in made.splitlines()}
    assert listed == set(re.findall(r"^([a-z]+):", makefile, flags=re.M))
    assert set(re.findall(r"make ([a-z]+)", README)) <= listed


def shorten(configs: Path) -> None:
    """Two epochs in place of five: `make demo` runs the recipe itself."""
    configs.unlink()
    shutil.copytree(PROJECT / "configs", configs)
    demo = (configs / "demo.yaml").read_text(encoding="utf-8")
    assert "epochs: 5" in demo
    (configs / "demo.yaml").write_text(demo.replace("epochs: 5", "epochs: 2"), encoding="utf-8")


@pytest.mark.timeout(2400)
def test_the_commands_work_as_written(project: Path) -> None:
    shorten(project / "configs")
    sample = resources.files("finsent.data.sample") / "sentences.csv"
    rows = list(csv.reader(sample.read_text(encoding="utf-8").splitlines()))
    with (project / "news.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows[:150])  # enough for the pipeline to be the real thing
    results = []
    for command in commands():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=project, env=environment(), capture_output=True, text=True, timeout=700,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if done.stdout:
            results.append(json.loads(done.stdout.splitlines()[-1]))
    by_job = {result["job"]: result for result in results if "job" in result}
    trained = [result for result in results if result.get("job") == "train"]
    assert by_job["ingest"]["counts"]["kept"] > 1400
    assert trained[0]["macro_f1"] > 0.7  # the majority class has 0.22
    assert by_job["sweep"]["verified"]["test"]["rows"] == 220
    assert trained[-1]["dataset_version"] == by_job["ingest"]["dataset_version"]
    [analysed] = [result for result in results if "job" not in result]
    assert analysed["trials"] == 4 and (project / analysed["page"]).is_file()
    assert by_job["evaluate"]["macro_f1"] > by_job["evaluate"]["baselines"]["majority"]["macro_f1"]
    assert by_job["publish"]["model_version"] in by_job["registry"]["aliases"].values()
    assert by_job["pipeline"]["model_version"] != by_job["publish"]["model_version"]
    assert by_job["compare"]["verdict"] in ("better", "worse", "no difference")
    assert by_job["compare"]["a"] != by_job["compare"]["b"]
    labels = [p["label"] for r in results if r.get("job") == "classify" for p in r["predictions"]]
    assert labels == ["negative", "neutral", "negative"]
    assert by_job["export"]["exports"]["onnxruntime-fp32"]["refused"] is None
    assert by_job["predict"]["rows"] == 149
    assert sum(by_job["predict"]["labels"].values()) == 149
    assert (project / "scored" / "news.csv.csv").is_file()
    assert by_job["serve"]["role"] == "predict"
    evaluation = project / "artifacts/runs/first/evaluation"
    assert (evaluation / "pictures/confusion.png").stat().st_size > 5_000
    assert "behaviour" in (evaluation / "report.html").read_text().lower()
    for name in ("config.json", "environment.json", "result.json"):
        assert (project / "artifacts/runs/first" / name).is_file()
