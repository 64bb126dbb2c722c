"""A program for a test: an elastic run on its own cluster, which loses a node and gains one.

Prints the logged steps, the number of workers of each, and the metrics as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pyarrow as pa
import ray
import ray.data
from ray.cluster_utils import Cluster

from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.provenance import Provenance
from finsent.modeling.random_backbones import tiny_backbone
from finsent.training.config import TrainConfig
from finsent.training.finished_run import TrainResult
from finsent.training.metrics_log import read_steps
from finsent.training.ray_trainer import fit_tokenized
from finsent.training.task import Task
from finsent.training.tokens import tokenize
from tests.commands import wait_until

ROWS, HELD_OUT = 2000, 60
WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


def rows(tiny: Path, count: int, start: int) -> pa.Table:
    labels = [LABELS[i % 3] for i in range(start, start + count)]
    texts = [f"Item {i}: {WORDS[label]} {'again ' * (i % 40)}" for i, label in enumerate(labels)]
    keys = [f"{i:06d}" for i in range(start, start + count)]
    return tokenize(pa.table({"key": keys, "text": texts, "label": labels}), str(tiny), None, 64)


def task(tiny: Path, epochs: int) -> Task:
    config = TrainConfig(
        num_workers=(1, 2),
        resize_every=1,
        epochs=epochs,
        batch_size=32,
        learning_rate=1e-3,
        checkpoint_every_steps=20,
        log_every_steps=5,
        start_timeout=5,
    )
    return Task(config, Backbone("tiny", str(tiny)), Provenance(max_length=64))


def main(folder: Path, epochs: int) -> None:
    """Train with two workers, with one after a node is lost, and with two after one is added."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK},
    )
    doomed = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    tiny = tiny_backbone(folder)
    splits = {
        "train": ray.data.from_arrow(rows(tiny, ROWS, 0)),
        "validation": ray.data.from_arrow(rows(tiny, HELD_OUT, ROWS)),
    }
    run_dir = folder / "run"
    results: list[TrainResult] = []
    thread = threading.Thread(
        target=lambda: results.append(fit_tokenized(task(tiny, epochs), splits, run_dir)),
        daemon=True,
    )
    thread.start()

    def trains_with(workers: int) -> bool:
        lines = read_steps(run_dir)
        assert thread.is_alive(), "training has ended before the cluster has changed"
        # 50 steps, so that some are in a checkpoint: a resize computes later ones again.
        newest = [line.workers for line in lines[-10:]]
        return newest == [workers] * 10

    try:
        wait_until(lambda: trains_with(2), 180, "two workers to train")
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(num_cpus=0)  # a node without room changes nothing
        wait_until(lambda: trains_with(1), 180, "one worker to resume")
        cluster.add_node(num_cpus=1)
        wait_until(lambda: trains_with(2), 180, "two workers to resume")
        thread.join(300)
        assert results, "training has not ended"
    finally:
        ray.shutdown()
        cluster.shutdown()
    lines = read_steps(run_dir)
    print(  # noqa: T201
        json.dumps(
            {
                "steps": [line.step for line in lines],
                "workers": [line.workers for line in lines],
                "rows": [metrics.train_rows for metrics in results[0].history],
                "macro_f1": results[0].best.macro_f1,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
