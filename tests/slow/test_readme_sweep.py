"""The commands of the guide to sweeps work as written, in a shell.

tests/e2e/test_readme.py runs them with fewer trials.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme import commands, run_in_shell, write_demo

PAGES = ("docs/guides/ingest.md", "docs/guides/sweep.md")


@pytest.mark.timeout(1200)
def test_the_commands_of_sweeps_work_as_written(project: Path) -> None:
    write_demo(project, {})
    answers = [run_in_shell(command) for command in commands({"trials=4": "trials=2"}, PAGES)]
    by_job = {answer["job"]: answer for answer in answers if answer and "job" in answer}
    assert sum(by_job["sweep"]["trials"].values()) == 2
    assert by_job["sweep"]["verified"]["test"]["rows"] == 220
    assert by_job["train"]["dataset_version"] == by_job["ingest"]["dataset_version"]
    [analyzed] = [answer for answer in answers if answer and "job" not in answer]
    assert analyzed["trials"] == 2 and (project / analyzed["page"]).is_file()
