"""A sweep on a cluster of its own that loses a node: a program for a test.

Prints what became of the trials as JSON.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import ray
from ray.cluster_utils import Cluster

from finsent.config import check
from finsent.data.ingest.ingest import ingest
from finsent.data.sources.files import find_sources
from finsent.labels import LABELS
from finsent.modeling.backbone import resolve_backbone
from finsent.training.metrics_log import read_epochs
from finsent.training.ray_trainer import tokenize_split
from finsent.training.task import make_task
from ray_jobs._settings import JobSettings
from tests.commands import wait_until
from tests.slow.elastic_driver import QUICK, WORDS
from tune.plan import begin_sweep, make_plan
from tune.records import read_sweep
from tune.sweep import search
from tune.trial import TrialContext

ROWS, EPOCHS = 1200, 48  # so long that the first still trains when the second has begun


def made_settings(root: Path) -> JobSettings:
    with (root / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("Sentence", "Sentiment"))
        for i in range(ROWS):
            writer.writerow(
                (f"Unit {i}: {WORDS[LABELS[i % 3]]} {'again ' * (i % 40)}", LABELS[i % 3])
            )
    off = {"enabled": False}
    values = {
        "storage": {"root": str(root / "out")},
        "data": {"sources": [str(root / "rows.csv")], "near_duplicates": off, "label_noise": off},
        "model": {"backbone": "tiny", "max_length": 64},
        "train": {"epochs": EPOCHS, "num_workers": 1, "learning_rate": 1e-3, "start_timeout": 60},
        "sweep": {
            "space": {"train.dropout": {"uniform": [0.0, 0.3]}},
            "trials": 2,
            "scheduler": "none",
            "default_first": False,
        },
    }
    return check(JobSettings, values)


def print_outcome(run_dir: Path, journals: Sequence[TextIO]) -> None:
    """Print the trials of the sweep, and how many open journals were not replaced, as JSON."""
    trials = read_sweep(run_dir).trials
    print(  # noqa: T201
        json.dumps(
            {
                "statuses": [trial.status for trial in trials],
                "reasons": [trial.reason for trial in trials],
                "epochs": [[epoch.epoch for epoch in trial.epochs] for trial in trials],
                "wanted": EPOCHS,
                # A run that resumes replaces its journal.
                "untouched": sum(os.fstat(file.fileno()).st_nlink for file in journals),
            }
        )
    )


def main(folder: Path) -> None:
    """Run two trials on two nodes of one CPU each. Remove and replace a node meanwhile."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK},
    )
    # Trials lie where there is more memory: one on each node, the first on the head.
    doomed = cluster.add_node(num_cpus=1, memory=1 << 30)
    ray.init(address=cluster.address, log_to_driver=False)
    settings = made_settings(folder)
    version = ingest(
        settings.data,
        settings.workspace.versions(settings.data.name),
        find_sources(settings.data, settings.workspace.sources_dir),
    )
    backbone = resolve_backbone(settings.model, settings.workspace.backbones_dir)
    plan, run_dir = make_plan(settings, backbone), settings.workspace.runs_dir / "sweep"
    run_dir.mkdir(parents=True)
    task = make_task(settings.train, settings.model, backbone, version)
    datasets = {split: tokenize_split(version, split, task) for split in ("train", "validation")}
    context = TrialContext(settings, run_dir, version.path, plan.config.modes, datasets)
    past = begin_sweep(plan, run_dir, version.version, 2)
    journals = [run_dir / "trials" / f"{n:04d}" / "metrics.jsonl" for n in (0, 1)]
    problems: list[BaseException] = []

    def searched() -> None:
        try:
            search(plan, context, past, [], 2)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=searched, daemon=True)
    thread.start()

    def both_train() -> bool:
        # On nodes of one CPU each that takes both of them.
        assert thread.is_alive(), f"the sweep has ended before the cluster has changed: {problems}"
        epochs = [[line.epoch for line in read_epochs(journal.parent)] for journal in journals]
        return all(numbers and numbers[-1] >= 2 for numbers in epochs)

    try:
        wait_until(both_train, 240, "both trials to train")
        open_journals = [journal.open() for journal in journals]
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(num_cpus=1, memory=1 << 30)
        thread.join(300)
        assert not thread.is_alive() and not problems, problems
    finally:
        ray.shutdown()
        cluster.shutdown()
    print_outcome(run_dir, open_journals)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
