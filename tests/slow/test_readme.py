"""The commands of README and docs work, in order, in a shell, with the real backbone.

tests/e2e/test_readme.py runs them with a tiny backbone, `test_readme_sweep.py` those of sweeps.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme import PAGES, commands, run_in_shell, sample_rows, write_csv, write_demo

# The job `export` writes all exports.
SHORTER = {
    "publish.alias=news": "publish.alias=news export.openvino=false",
    "name=theirs": "name=theirs export.openvino=false",
}


@pytest.mark.timeout(2400)
def test_the_commands_work_as_written(project: Path) -> None:
    # Two epochs in place of five: `make demo` runs the recipe itself.
    write_demo(project, {"epochs: 5": "epochs: 2"})
    write_csv(project / "news.csv", sample_rows()[:150])
    pages = [page for page in PAGES if page != "docs/guides/sweep.md"]
    answers = [run_in_shell(command) for command in commands(SHORTER, pages)]
    results = [answer for answer in answers if answer is not None]
    by_job = {result["job"]: result for result in results if "job" in result}
    assert by_job["ingest"]["counts"]["kept"] > 1400
    assert by_job["train"]["macro_f1"] > 0.7  # the majority class has 0.22
    assert by_job["evaluate"]["macro_f1"] > by_job["evaluate"]["baselines"]["majority"]["macro_f1"]
    labels = [p["label"] for r in results if r.get("job") == "classify" for p in r["predictions"]]
    assert labels == ["negative", "neutral", "negative"]
    assert by_job["predict"]["rows"] == 149
    assert by_job["compare"]["verdict"] in ("better", "worse", "no difference")
