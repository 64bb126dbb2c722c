"""The commands of docs/dvc.md with real DVC: a Git repository, a remote, a colleague's clone."""

from __future__ import annotations

import csv
import os
import random
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finsent.data.rows.split import SPLITS
from finsent.data.versions.dataset import DatasetVersion
from finsent.files import read_json
from tests.commands import PROJECT, environment, invoke_job
from tests.e2e.conftest import Cluster

HOWTO = PROJECT / "docs" / "dvc.md"
DVC = shutil.which("dvc", path=environment()["PATH"])

needs_dvc = pytest.mark.skipif(
    DVC is None, reason="dvc is not installed; install it with: pip install -e '.[dvc]'"
)


def blocks(language: str, heading: str) -> list[str]:
    """The code blocks under a heading of the how-to."""
    section = HOWTO.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.M | re.S)


@dataclass(frozen=True)
class Desk:
    """A Git repository with the project's files in it, and a shell of its own settings."""

    project: Path
    env: dict[str, str]

    def shell(self, commands: str, cwd: Path | None = None) -> str:
        """Run commands to the first that fails; returns what they print."""
        done = subprocess.run(
            ["bash", "-ec", commands],
            cwd=cwd or self.project,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def desk(tmp_path: Path, cluster: Cluster) -> Desk:
    """A desk without the machine's settings of DVC and Git. Its jobs join the cluster."""
    project = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("configs", "docs", "finsent", "ray_jobs"):
        shutil.copytree(PROJECT / folder, project / folder, ignore=ignored)
    for file in ("dvc.yaml", ".gitignore"):
        shutil.copy(PROJECT / file, project / file)
    own = {
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(tmp_path / "dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(tmp_path / "dvc-system"),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "dvc-site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{
            f"GIT_{who}_{what}": "tests@example.com"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    inherited = {k: v for k, v in cluster.joining.items() if not k.startswith(("GIT_", "DVC_"))}
    desk = Desk(project, {**inherited, **own})
    desk.shell("git init --quiet")
    return desk


def write_news(project: Path, rows: int) -> None:
    """Texts that have little in common; the first rows are the same for every number of rows."""
    rng = random.Random(0)
    verbs = {"rose": "positive", "fell": "negative", "was published": "neutral"}
    (project / "data").mkdir(exist_ok=True)
    with (project / "data" / "news.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["Sentence", "Sentiment"])
        for _ in range(rows):
            words = " ".join("".join(rng.choices("aeimnorst", k=6)) for _ in range(8))
            verb = rng.choice([*verbs])
            table.writerow([f"{words} {verb}", verbs[verb]])


def versions(folder: Path) -> set[str]:
    return {manifest.parent.name for manifest in folder.glob("*/manifest.json")}


def latest(folder: Path) -> str:
    return DatasetVersion.find("latest", folder, "train.dataset").version


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@needs_dvc
@pytest.mark.cost(30, "DVC commands, two ingests")
def test_a_version_travels_with_the_commit(desk: Desk) -> None:
    for heading in ("Set up, once", "Make a version and share it"):
        for block in blocks("bash", heading):
            desk.shell(block)
    folder = desk.project / "artifacts" / "datasets" / "sample"
    [version] = versions(folder)
    assert "up to date" in desk.shell("dvc status")

    [block] = blocks("bash", "Get it on another machine")
    output = desk.shell(block)
    assert f'"dataset_version": "{version}"' in output
    assert '"reused": true' in output
    colleague = desk.project.parent / "colleague"
    assert contents(colleague / "artifacts" / "datasets" / "sample") == contents(folder)
    assert "up to date" in desk.shell("dvc status", colleague)  # using it did not change it


@needs_dvc
@pytest.mark.cost(40, "many DVC commands, three ingests")
def test_own_data_and_its_history(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks("bash", "Set up, once"):
        desk.shell(block)
    config, stage = blocks("yaml", "Your own data")
    (desk.project / "configs" / "news.yaml").write_text(config, encoding="utf-8")
    stages = desk.project / "dvc.yaml"
    stages.write_text(re.sub(r" +sample: .*\n", stage, stages.read_text(encoding="utf-8")))
    share, history = blocks("bash", "Your own data")

    folder = desk.project / "artifacts" / "datasets" / "news"
    write_news(desk.project, 240)
    desk.shell(share)
    [first_version] = versions(folder)
    write_news(desk.project, 300)
    desk.shell(share)
    [second] = versions(folder) - {first_version}
    assert versions(folder) == {first_version, second}  # the earlier one was not deleted

    back, forth = history.split("git checkout --quiet -\n")
    desk.shell(back)
    assert (versions(folder), latest(folder)) == ({first_version}, first_version)
    desk.shell(f"git checkout --quiet -\n{forth}")
    assert (versions(folder), latest(folder)) == ({first_version, second}, second)

    # Links into DVC's cache are read-only.
    colleague = desk.project.parent / "colleague"
    desk.shell(
        "git clone --quiet . ../colleague; cd ../colleague; "
        "dvc config --local cache.type hardlink,symlink; dvc pull"
    )
    assert sorted(path.name for path in (colleague / "artifacts").iterdir()) == ["datasets"]
    pulled = colleague / "artifacts" / "datasets" / "news"
    assert latest(pulled) == second
    DatasetVersion.open(pulled / first_version).mark_latest()
    assert "modified" in desk.shell("dvc status", colleague)
    desk.shell("dvc checkout --force", colleague)
    assert latest(pulled) == second
    assert "up to date" in desk.shell("dvc status", colleague)
    monkeypatch.chdir(colleague)
    ingested = invoke_job("ingest", "configs/news.yaml")
    assert ingested.code == 0, ingested.err
    assert (ingested.result["dataset_version"], ingested.result["reused"]) == (second, True)
    changed = invoke_job("ingest", "configs/news.yaml", "diff", first_version, second)
    assert changed.code == 0, changed.err
    check_growth(changed.result, pulled, first_version, second)
    assert latest(pulled) == second  # the version that was asked for last


def check_growth(
    difference: dict[str, Any], folder: Path, first_version: str, second_version: str
) -> None:
    rows = {name: DatasetVersion.open(folder / name) for name in (first_version, second_version)}
    row_counts = {name: sum(v.rows(split) for split in SPLITS) for name, v in rows.items()}
    assert difference["rows"]["added"]["rows"] - difference["rows"]["removed"]["rows"] == (
        row_counts[second_version] - row_counts[first_version]
    )
    assert difference["rows"]["moved"]["rows"] == 0
    assert [item["source"] for item in difference["inputs"]["changed"]] == ["news.csv"]
    assert read_json(folder / second_version / "manifest.json")["counts"]["rows_in"] == 300


def test_the_stage_is_the_documented_command() -> None:
    """Every dataset of dvc.yaml has the name that its config gives it."""
    text = (PROJECT / "dvc.yaml").read_text(encoding="utf-8")
    assert "cmd: python -m ray_jobs.ingest ${item.config}" in text
    stages = re.findall(r"config: (\S+?), name: (\S+?), files: (\S+?)}", text)
    assert stages
    for config, name, files in stages:
        assert f"  name: {name}\n" in (PROJECT / config).read_text(encoding="utf-8")
        assert (PROJECT / files).is_file()
