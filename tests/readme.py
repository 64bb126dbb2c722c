"""The commands of README and docs, how to run them, and a place to run them in."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ray_jobs._configs import shipped
from tests.commands import PROJECT, environment

# Pages in the order in which their bash blocks run: each page uses what earlier pages made.
PAGES = (
    "README.md",
    "docs/quickstart.md",
    "docs/guides/predict.md",
    "docs/guides/pipeline.md",
    "docs/guides/compare.md",
    "docs/guides/adopt.md",
    "docs/guides/sweep.md",
    "docs/serving.md",
    "docs/configuration.md",
    # Their commands are those of the quickstart.
    "docs/guides/ingest.md",
    "docs/guides/train.md",
    "docs/guides/evaluate.md",
    "docs/guides/export.md",
    "docs/guides/publish.md",
    "docs/guides/classify.md",
    "docs/rollout.md",
)
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def read_page(page: str) -> str:
    """Return the text of a page, named from the project's root."""
    return (PROJECT / page).read_text(encoding="utf-8")


def block_lines(text: str, language: str) -> list[str]:
    """Return the lines of a page's code blocks in a language, continued lines joined."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def commands(changes: dict[str, str], pages: Sequence[str] = PAGES) -> list[str]:
    """Return the lines of the bash blocks of pages, in order, each line once.

    `finsent JOB` becomes `python -m ray_jobs.JOB`, which needs no installed script.

    Args:
        changes: text to replace; each occurs in a command.
    """
    lines = [line for page in pages for line in block_lines(read_page(page), "bash")]
    lines = [line for line in dict.fromkeys(lines) if line != ". .venv/bin/activate"]
    lines = [re.sub(r"(^|\| )finsent ", r"\1python -m ray_jobs.", line) for line in lines]
    for before, after in changes.items():
        assert any(before in line for line in lines), before
        lines = [line.replace(before, after) for line in lines]
    return lines


def run_in_shell(command: str) -> dict[str, Any] | None:
    """Run a command, and return the JSON object on the last line of its stdout, if any."""
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=700,
    )
    assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    return json.loads(process.stdout.splitlines()[-1]) if process.stdout else None


def notebook_code(notebook: str) -> list[str]:
    """Return the code of a notebook's cells, the notebook named from the project's root."""
    cells = json.loads(read_page(notebook))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def sample_rows() -> list[list[str]]:
    """Return the sample corpus, its header first."""
    sample = resources.files("finsent.data.sample") / "sentences.csv"
    return list(csv.reader(sample.read_text(encoding="utf-8").splitlines()))


def write_csv(path: Path, rows: list[list[str]]) -> None:
    """Write rows to a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def write_demo(folder: Path, changes: dict[str, str]) -> None:
    """Write a demo.yaml that is used instead of the shipped one, with text of that one replaced."""
    path = shipped("demo")
    assert path is not None
    demo = path.read_text(encoding="utf-8")
    for before, after in changes.items():
        assert before in demo
        demo = demo.replace(before, after)
    (folder / "demo.yaml").write_text(demo, encoding="utf-8")
