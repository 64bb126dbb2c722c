"""Training without Ray: `torchrun --nproc-per-node N -m finsent.training.standalone SPEC.json`.

The benchmark compares Ray Train with this program. It also trains where Ray is not available.
"""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from finsent.files import read_json, write_json
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer
from finsent.modeling.provenance import Provenance
from finsent.training.callbacks import WritingCallbacks
from finsent.training.checkpoint import epoch_checkpoint_name, latest_valid, read_state
from finsent.training.checkpoint_writer import CheckpointWriter, WriteState
from finsent.training.config import TrainConfig
from finsent.training.metrics import EpochMetrics
from finsent.training.metrics_log import read_metrics
from finsent.training.plot import plot_training
from finsent.training.progress import Progress
from finsent.training.task import Task
from finsent.training.tokens import TokenizedRows
from finsent.training.train import train
from finsent.training.training_run import TrainingInputs

log = logging.getLogger(__name__)

HISTORY_FILE = "history.json"
_SPEC_FILE = "spec.json"


def write_spec(folder: Path, task: Task, splits: dict[str, pa.Table]) -> Path:
    """Write what the processes read to a folder; return the path of the spec.

    Args:
        splits: `train` and `validation`, of `finsent.training.tokens.TOKENIZED_SCHEMA`.
    """
    for split, table in splits.items():
        pq.write_table(table, folder / f"{split}.parquet")
    spec = {
        "config": task.config.model_dump(mode="json"),
        "backbone": asdict(task.backbone),
        "provenance": task.provenance.model_dump(mode="json"),
    }
    write_json(folder / _SPEC_FILE, spec)
    return folder / _SPEC_FILE


class FileCallbacks(WritingCallbacks):
    """Writes checkpoints and metrics into a directory; logs notes."""

    def __init__(self, folder: Path, writer: CheckpointWriter | None) -> None:
        super().__init__(folder, writer)
        self._folder = folder

    def on_progress(self, progress: Progress) -> None:
        """Show nothing."""

    def on_note(self, message: str) -> None:
        """Log the note."""
        if self._writer:
            log.warning("%s", message)

    def on_epoch_end(self, metrics: EpochMetrics, write_state: WriteState | None) -> None:
        """Write the checkpoint, then the metrics of all epochs so far."""
        if self._writer and write_state:
            folder = self._writer.write(epoch_checkpoint_name(metrics.epoch), write_state)
            history = [epoch.model_dump(mode="json") for epoch in read_state(folder).history]
            write_json(self._folder / HISTORY_FILE, history)


def main(spec_file: Path) -> None:
    """Train in this process, which is alone, or one that torchrun has started.

    Resumes from the latest valid checkpoint next to the spec, if any.
    """
    task, folder = _read_task(spec_file), spec_file.parent
    device = _start_process_group(task.config)
    try:
        pad_id = load_tokenizer(task.backbone.source, task.backbone.revision).pad_token_id
        train_rows, validation_rows = (
            TokenizedRows.from_table(pq.read_table(folder / f"{split}.parquet"), pad_id)
            for split in ("train", "validation")
        )
        is_first = not dist.is_initialized() or dist.get_rank() == 0
        latest = latest_valid(folder)  # the same on all ranks: none writes before all have begun
        keep_every = task.config.keep_every_epochs
        writer_context = CheckpointWriter(folder, keep_every) if is_first else nullcontext()
        with writer_context as writer:
            train(
                TrainingInputs(
                    task=task,
                    train_rows=train_rows,
                    validation_rows=validation_rows,
                    callbacks=FileCallbacks(folder, writer),
                    device=device,
                    resume_from=latest.folder if latest else None,
                )
            )
        if is_first:
            plot_training(read_metrics(folder), folder / "training.png", "torchrun")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _read_task(spec_file: Path) -> Task:
    spec = read_json(spec_file)
    provenance = Provenance.model_validate(spec["provenance"])
    return Task(TrainConfig(**spec["config"]), Backbone(**spec["backbone"]), provenance)


def _start_process_group(config: TrainConfig) -> torch.device:
    """Join torchrun's process group, if any; return the device of this process."""
    if not dist.is_torchelastic_launched():
        return torch.device("cpu")
    uses_gpu = torch.cuda.is_available() and config.use_gpu != "no"
    dist.init_process_group("nccl" if uses_gpu else "gloo")
    if not uses_gpu:
        return torch.device("cpu")
    device = torch.device("cuda", dist.get_node_local_rank())
    torch.cuda.set_device(device)
    return device


if __name__ == "__main__":
    main(Path(sys.argv[1]))
