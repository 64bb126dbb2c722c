"""JobSettings, rows and plans for tests of sweeps, and the resources that trials hold."""

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
from tune.plan import Plan, begin_sweep, make_plan
from tune.records import Sweep
from tune.trial import TrialContext

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
    plain = settings(root, {})
    return ingest(
        plain.data,
        plain.workspace.versions(plain.data.name),
        find_sources(plain.data, plain.workspace.sources_dir),
    )


def training_sweep(
    version: DatasetVersion, run_dir: Path, sweep: dict[str, Any], **train: Any
) -> tuple[Plan, TrialContext, Sweep]:
    """Prepare a sweep whose trials train."""
    from finsent.training.ray_trainer import tokenize_split
    from finsent.training.task import make_task

    run_dir.mkdir(exist_ok=True)
    root = version.path.parents[2]
    configured = settings(root, sweep, **train)
    backbone = resolve_backbone(configured.model, configured.workspace.backbones_dir)
    plan = make_plan(configured, backbone)
    task = make_task(configured.train, configured.model, backbone, version)
    datasets = {split: tokenize_split(version, split, task) for split in ("train", "validation")}
    modes, exchanges = plan.config.modes, plan.config.exchanges_weights
    context = TrialContext(configured, run_dir, version.path, modes, datasets, exchanges)
    return plan, context, begin_sweep(plan, run_dir, version.version, 2)


def sham_sweep(
    version: DatasetVersion, run_dir: Path, sweep: dict[str, Any], **train: Any
) -> tuple[Plan, TrialContext, Sweep]:
    """Prepare a sweep with sham trainings, see `tests.integration.sham`."""
    run_dir.mkdir(exist_ok=True)
    configured = settings(version.path.parents[2], sweep, **train)
    plan = make_plan(
        configured, resolve_backbone(configured.model, configured.workspace.backbones_dir)
    )
    datasets = {"train": "rows", "validation": "rows"}
    modes, exchanges = plan.config.modes, plan.config.exchanges_weights
    context = TrialContext(
        configured, run_dir, version.path, modes, datasets, exchanges, training=Training
    )
    return plan, context, begin_sweep(plan, run_dir, version.version, 2)


def held_resources() -> list[str]:
    """Return what trainings hold of the cluster: workers, cleaners and placement groups."""
    process_names = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process_names.append(process.name())
    holders = ("RayTrainWorker", "TrainController", "PlacementGroupCleaner", "ray::Training")
    groups = placement_group_table().values()
    return [
        *(name for name in process_names if any(holder in name for holder in holders)),
        *(str(group["bundles"]) for group in groups if group["state"] != "REMOVED"),
    ]


def wait_until_released(meanwhile: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + 30
    while held_resources():
        meanwhile()
        assert time.monotonic() < deadline, held_resources()
        time.sleep(0.2)
