"""The loop without Ray: `torchrun --nproc-per-node N -m finsent.training.standalone SPEC.json`.

The yardstick of the benchmark, and a way to run where there is no Ray.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from finsent.files import write_json
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer
from finsent.training.config import TrainConfig
from finsent.training.loop import train
from finsent.training.progress import Progress
from finsent.training.task import Task
from finsent.training.tokens import TokenRows

HISTORY = "history.json"


def write_spec(folder: Path, task: Task, splits: dict[str, pa.Table]) -> Path:
    """Write what the processes need to `folder` and return the spec's path.

    Args:
        splits: `train` and `validation`, schema `finsent.training.tokens.TOKENISED`.
    """
    for name, table in splits.items():
        pq.write_table(table, folder / f"{name}.parquet")
    spec = {
        "config": task.config.model_dump(mode="json"),
        "backbone": asdict(task.backbone),
        "provenance": task.provenance,
    }
    write_json(folder / "spec.json", spec)
    return folder / "spec.json"


@dataclass
class FileHooks:
    """Checkpoints and metrics into a directory: one checkpoint, replaced each epoch."""

    folder: Path
    history: list[dict[str, Any]] = field(default_factory=list)

    def inform(self, progress: Progress) -> None:
        """Nothing: the log of epochs is enough here."""

    def epoch_done(self, metrics: dict[str, Any], save: Callable[[Path], None] | None) -> None:
        """Save the checkpoint, then the metrics so far."""
        self.history.append(metrics)
        if save is not None:
            out = self.folder / "checkpoint"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            save(out)
            write_json(self.folder / HISTORY, self.history)


def main(spec_path: Path) -> None:
    """Train in this process, one of those that torchrun started, or alone."""
    spec = json.loads(spec_path.read_text(encoding="utf-8"))
    task = Task(TrainConfig(**spec["config"]), Backbone(**spec["backbone"]), spec["provenance"])
    device = torch.device("cpu")
    if dist.is_torchelastic_launched():
        cuda = torch.cuda.is_available() and task.config.use_gpu != "no"
        dist.init_process_group("nccl" if cuda else "gloo")
        if cuda:
            device = torch.device("cuda", dist.get_node_local_rank())
            torch.cuda.set_device(device)
    pad_id = load_tokenizer(task.backbone.source, task.backbone.revision).pad_token_id
    train_rows, validation_rows = (
        TokenRows.from_table(pq.read_table(spec_path.parent / f"{name}.parquet"), pad_id)
        for name in ("train", "validation")
    )
    try:
        train(task, train_rows, validation_rows, FileHooks(spec_path.parent), device)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
