"""The commands of the README, and a place to run them in."""

from __future__ import annotations

import csv
import re
import shutil
from importlib import resources
from pathlib import Path

from tests.commands import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def commands(changes: dict[str, str]) -> list[str]:
    """Return the lines of the README's bash blocks, in the order written.

    Args:
        changes: text to replace; each occurs in a command.
    """
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    lines = [line for line in lines if line.strip() and line != ". .venv/bin/activate"]
    for before, after in changes.items():
        assert any(before in line for line in lines), before
        lines = [line.replace(before, after) for line in lines]
    return lines


def sample_rows() -> list[list[str]]:
    """The sample corpus, its header first."""
    sample = resources.files("finsent.data.sample") / "sentences.csv"
    return list(csv.reader(sample.read_text(encoding="utf-8").splitlines()))


def write_csv(path: Path, rows: list[list[str]]) -> None:
    """Write rows to a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


def change_demo(configs: Path, changes: dict[str, str]) -> None:
    """Copy the configs in place of the link, with text of demo.yaml replaced."""
    configs.unlink()
    shutil.copytree(PROJECT / "configs", configs)
    demo = (configs / "demo.yaml").read_text(encoding="utf-8")
    for before, after in changes.items():
        assert before in demo
        demo = demo.replace(before, after)
    (configs / "demo.yaml").write_text(demo, encoding="utf-8")
