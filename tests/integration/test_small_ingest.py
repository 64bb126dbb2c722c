"""Small data is ingested and tokenized in the job's process, as on Ray."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

import finsent.data.ingest.ingest as ingest_module
from finsent.config import load
from finsent.data.ingest import local_tasks, ray_tasks
from finsent.data.ingest.ingest import ingest, needs_ray
from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.modeling.backbone import resolve_backbone
from finsent.training.task import make_task
from ray_jobs._settings import JobSettings

LABELS = ("positive", "neutral", "negative")
WORDS = ("pumps", "valves", "bonds", "ships", "cranes", "loans", "ports")


def write_source(path: Path, *, broken: int) -> Path:
    """Write rows with duplicates, conflicts, near-duplicates, and texts without a label."""
    rows = [
        (f"Unit {i} sold {i * i} {WORDS[i % 7]} to {i % 5} clients", LABELS[i % 3])
        for i in range(90)
    ]
    rows += rows[:7] + [(text, LABELS[0]) for text, label in rows[10:14] if label != LABELS[0]]
    rows += [(f"Row {i} of no kind", "unknown") for i in range(broken)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("Sentence", "Sentiment"), *rows])
    return path


def make(folder: Path, source: Path) -> DatasetVersion:
    overrides = [f"data.sources=[{source}]", "data.max_rejected_fraction=0.05"]
    config = load(JobSettings, [], overrides).data
    files = find_sources(config, folder / "hubs")
    return ingest(config, folder, files, folder)


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that forbids one of the two ways."""

    def forbid_way(tasks: Any, limit: int) -> None:
        monkeypatch.setattr(ingest_module, "_MAX_LOCAL_BYTES", limit)
        monkeypatch.setattr(tasks, "scan_sources", None)

    return forbid_way


def test_both_ways_write_the_same_files(
    forbid: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "rows.csv", broken=2)
    forbid(ray_tasks, 1 << 20)
    here = make(tmp_path / "here", source)
    monkeypatch.undo()
    forbid(local_tasks, -1)
    on_ray = make(tmp_path / "ray", source)
    assert here.manifest.counts == on_ray.manifest.counts
    assert here.manifest.counts.duplicates and here.manifest.counts.conflicts
    changing = {"report.html"}  # has the time of the ingest
    digests = [
        {file.path: file.sha256 for file in version.manifest.digests if file.path not in changing}
        for version in (here, on_ray)
    ]
    assert digests[0] == digests[1]


def test_both_ways_refuse_the_same_rows(
    forbid: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "rows.csv", broken=200)
    forbid(ray_tasks, 1 << 20)
    with pytest.raises(InputError) as here:
        make(tmp_path / "here", source)
    monkeypatch.undo()
    forbid(local_tasks, -1)
    with pytest.raises(InputError) as on_ray:
        make(tmp_path / "ray", source)
    assert str(here.value).replace("here", "ray") == str(on_ray.value)
    assert not [*(tmp_path / "here").glob("*/manifest.json")]


def test_size_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = write_source(tmp_path / "rows.csv", broken=0)
    config = load(JobSettings, [], [f"data.sources=[{source}]"]).data
    files = find_sources(config, tmp_path)
    size = source.stat().st_size
    monkeypatch.setattr(ingest_module, "_MAX_LOCAL_BYTES", size)
    assert not needs_ray(files)
    monkeypatch.setattr(ingest_module, "_MAX_LOCAL_BYTES", size - 1)
    assert needs_ray(files)


def test_a_small_split_is_tokenized_as_on_ray(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    from finsent.training import ray_trainer  # PyTorch: 2 s

    version = make(tmp_path, write_source(tmp_path / "rows.csv", broken=0))
    settings = load(JobSettings, [], [f"model.backbone={tiny}", "train.learning_rate=1e-4"])
    backbone = resolve_backbone(settings.model, tmp_path)
    task = make_task(settings.train, settings.model, backbone, version)

    def tokenized() -> pa.Table:
        blocks = ray_trainer.tokenized_blocks(version, "train", task)
        return pa.concat_tables(ray.get(blocks)).sort_by("key")

    with monkeypatch.context() as patch:
        patch.setattr(ray_trainer, "tokenize_split", None)
        here = tokenized()
    monkeypatch.setattr(ray_trainer, "_MAX_LOCAL_ROWS", 0)
    assert len(here) == version.rows("train")
    assert here.equals(tokenized())
