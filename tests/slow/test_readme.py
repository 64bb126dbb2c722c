"""The commands of README and docs work, in order, in a shell, with the real backbone.

tests/e2e/test_readme.py runs them with a tiny backbone.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.commands import environment
from tests.readme import commands, sample_rows, write_csv, write_demo

# The job `export` writes all exports.
SHORTER = {
    "publish.alias=news": "publish.alias=news export.openvino=false",
    "name=theirs": "name=theirs export.openvino=false",
    "sweep.trials=4": "sweep.trials=2",
}


@pytest.mark.timeout(2400)
def test_the_commands_work_as_written(project: Path) -> None:
    # Two epochs in place of five: `make demo` runs the recipe itself.
    write_demo(project, {"epochs: 5": "epochs: 2"})
    write_csv(project / "news.csv", sample_rows()[:150])
    results = []
    for command in commands(SHORTER):
        process = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=700,
        )
        assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
        if process.stdout:
            results.append(json.loads(process.stdout.splitlines()[-1]))
    by_job = {result["job"]: result for result in results if "job" in result}
    trained = [result for result in results if result.get("job") == "train"]
    assert by_job["ingest"]["counts"]["kept"] > 1400
    assert trained[0]["macro_f1"] > 0.7  # the majority class has 0.22
    assert by_job["sweep"]["verified"]["test"]["rows"] == 220
    assert by_job["evaluate"]["macro_f1"] > by_job["evaluate"]["baselines"]["majority"]["macro_f1"]
    labels = [p["label"] for r in results if r.get("job") == "classify" for p in r["predictions"]]
    assert labels == ["negative", "neutral", "negative"]
    assert by_job["predict"]["rows"] == 149
    assert by_job["compare"]["verdict"] in ("better", "worse", "no difference")
