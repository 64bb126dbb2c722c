"""What tests of sweeps share: their settings, rows and plans, and what trials hold of Ray."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from ray.util import placement_group_table

from finsent.config import check
from finsent.data.ingest.ingest import ingest
from finsent.data.sources.files import find_sources
from finsent.data.versions.dataset import DatasetVersion
from finsent.labels import LABELS
from finsent.modeling.backbone import resolve_backbone
from ray_jobs._settings import JobSettings
from tests.integration.sham import Training
from tune.plan import Plan, begin, make_plan
from tune.records import Sweep
from tune.trial import Work

WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}


def settings(root: Path, sweep: dict[str, Any], **train: Any) -> JobSettings:
    values = {
        "storage": {"root": str(root)},
        "model": {"backbone": "tiny", "max_length": 64},
        "data": {
            "sources": [str(root / "rows.csv")],
            "near_duplicates": {"enabled": False},
            "label_noise": {"enabled": False},
        },
        "train": {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "num_workers": 1, **train},
        "sweep": sweep,
        "export": {"openvino": False},
    }
    return check(JobSettings, values)


def make_version(root: Path) -> DatasetVersion:
    """A dataset version of 240 rows under a storage root."""
    with (root / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("Sentence", "Sentiment"))
        for i in range(240):
            words = WORDS[LABELS[i % 3]]
            writer.writerow((f"Unit {i}: {words}, then {words} once more", LABELS[i % 3]))
    made = settings(root, {})
    return ingest(made.data, made.datasets_dir, find_sources(made.data, made.sources_dir))


def prepared(
    version: DatasetVersion, run_dir: Path, sweep: dict[str, Any], **train: Any
) -> tuple[Plan, Work, Sweep]:
    """A sweep whose trials train."""
    from finsent.training.ray_trainer import tokenize_split
    from finsent.training.task import make_task

    run_dir.mkdir(exist_ok=True)
    root = version.path.parents[2]
    made = settings(root, sweep, **train)
    backbone = resolve_backbone(made.model, made.root / "backbones")
    plan = make_plan(made, backbone)
    task = make_task(made.train, made.model, backbone, version)
    datasets = {split: tokenize_split(version, split, task) for split in ("train", "validation")}
    modes, exchanges = plan.config.modes, plan.config.scheduler == "pbt"
    work = Work(made, run_dir, version.path, modes, datasets, exchanges)
    return plan, work, begin(plan, run_dir, version.version, 2)


def sham(
    version: DatasetVersion, run_dir: Path, sweep: dict[str, Any], **train: Any
) -> tuple[Plan, Work, Sweep]:
    """A sweep whose trials do all but train."""
    run_dir.mkdir(exist_ok=True)
    made = settings(version.path.parents[2], sweep, **train)
    plan = make_plan(made, resolve_backbone(made.model, made.root / "backbones"))
    datasets = {"train": "rows", "validation": "rows"}
    modes, exchanges = plan.config.modes, plan.config.scheduler == "pbt"
    work = Work(made, run_dir, version.path, modes, datasets, exchanges, training=Training)
    return plan, work, begin(plan, run_dir, version.version, 2)


def held() -> list[str]:
    """What training runs hold of the cluster: their workers, cleaners and placement groups."""
    children = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            children.append(process.name())
    names = ("RayTrainWorker", "TrainController", "PlacementGroupCleaner", "ray::Training")
    groups = placement_group_table().values()
    return [
        *(name for name in children if any(one in name for one in names)),
        *(str(one["bundles"]) for one in groups if one["state"] != "REMOVED"),
    ]


def wait_until_nothing_is_held(meanwhile: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + 30
    while held():
        meanwhile()
        assert time.monotonic() < deadline, held()
        time.sleep(0.2)
