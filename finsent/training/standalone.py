"""The loop without Ray: `torchrun --nproc-per-node N -m finsent.training.standalone SPEC.json`.

The yardstick of the benchmark, and a way to run where there is no Ray.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from finsent.files import read_json, write_json
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer
from finsent.training.checkpoint import epoch_name, newest_whole
from finsent.training.config import TrainConfig
from finsent.training.frontends import trainer_of
from finsent.training.hooks import WritingHooks
from finsent.training.outputs import Outputs, Save, read_journal
from finsent.training.picture import training_picture
from finsent.training.progress import Progress
from finsent.training.task import Task
from finsent.training.tokens import TokenRows

log = logging.getLogger(__name__)

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


class FileHooks(WritingHooks):
    """Checkpoints, metrics and notes into a directory."""

    def __init__(self, folder: Path, outputs: Outputs | None) -> None:
        super().__init__(outputs)
        self._folder = folder

    def inform(self, progress: Progress) -> None:
        """Nothing: the log of epochs is enough here."""

    def note(self, message: str) -> None:
        """To the log."""
        if self._outputs:
            log.warning("%s", message)

    def epoch_done(self, metrics: dict[str, Any], save: Save | None) -> None:
        """Save the checkpoint, then the metrics so far."""
        if self._outputs and save:
            folder = self._outputs.save(epoch_name(metrics["epoch"]), save)
            write_json(self._folder / HISTORY, read_json(folder / "state.json")["history"])


def main(spec_path: Path) -> None:
    """Train in this process, one of those that torchrun started, or alone.

    Goes on from the newest whole checkpoint beside the spec, if there is one.
    """
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
    folder = spec_path.parent
    try:
        first = not dist.is_initialized() or dist.get_rank() == 0
        newest = newest_whole(folder)  # on all ranks: nobody writes before they have met
        resume = newest.folder if newest else None
        with Outputs(folder, task.config.keep_every_epochs) if first else nullcontext() as outputs:
            train = trainer_of(task.config)
            train(task, train_rows, validation_rows, FileHooks(folder, outputs), device, resume)
        if first:
            training_picture(read_journal(folder), folder / "training.png", "torchrun")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
