"""Training of a tiny BERT in this process, with callbacks that record everything."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file

from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import new_classifier
from finsent.modeling.provenance import Provenance
from finsent.training.checkpoint import epoch_checkpoint_name
from finsent.training.checkpoint_writer import WriteState
from finsent.training.config import TrainConfig
from finsent.training.metrics import EpochMetrics
from finsent.training.metrics_log import MetricsLine
from finsent.training.progress import Progress
from finsent.training.task import Task
from finsent.training.tokens import TokenizedRows, tokenize
from finsent.training.train import train
from finsent.training.training_run import TrainingInputs

TRAIN_ROWS, VALIDATION_ROWS = 97, 31  # multiples of no batch size
WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}


def rows_of(tiny: Path, count: int, start: int, **columns: list[Any]) -> TokenizedRows:
    labels = columns.pop("label", [LABELS[i % 3] for i in range(start, start + count)])
    texts = [f"Unit {i}: {WORDS[name]}{' today' * (i % 9)}" for i, name in enumerate(labels, start)]
    keys = [f"{i:06d}" for i in range(start, start + count)]
    rows = {"key": keys, "text": texts, "label": labels, **columns}
    table = tokenize(pa.table(rows), str(tiny), None, 64)
    return TokenizedRows.from_table(table, pad_id=0)


class Stopped(Exception):  # noqa: N818 - as StopIteration
    """The run was killed."""


@dataclass
class Recorder:
    """Callbacks that record everything."""

    folder: Path
    metrics: list[EpochMetrics] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: list[MetricsLine] = field(default_factory=list)
    start_step: int = -1
    stop_after: str | None = None

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)

    def on_note(self, message: str) -> None:
        self.notes.append(message)

    def on_start(self, step: int) -> None:
        self.start_step = step

    def on_metrics(self, line: MetricsLine) -> None:
        self.lines.append(line)

    def on_checkpoint(self, name: str, write_state: WriteState | None) -> None:
        self._write(self.folder / name, write_state)

    def on_epoch_end(self, metrics: EpochMetrics, write_state: WriteState | None) -> None:
        self.metrics.append(metrics)
        self._write(self.checkpoint(metrics.epoch), write_state)

    def _write(self, out: Path, write_state: WriteState | None) -> None:
        assert write_state is not None  # this is the only rank
        out.mkdir(parents=True)
        write_state(out)
        if out.name == self.stop_after:
            raise Stopped

    def checkpoint(self, epoch: int) -> Path:
        return self.folder / epoch_checkpoint_name(epoch)

    @property
    def last(self) -> Path:
        return self.checkpoint(self.metrics[-1].epoch)


class Bench:
    """Trains on the same rows with varying settings."""

    def __init__(self, tiny: Path, folder: Path, device: str = "cpu") -> None:
        self.tiny, self.folder, self.runs = tiny, folder, 0
        self.device = torch.device(device)
        self.train_rows = rows_of(tiny, TRAIN_ROWS, 0)
        self.validation_rows = rows_of(tiny, VALIDATION_ROWS, TRAIN_ROWS)

    def run(
        self,
        resume: Path | None = None,
        backbone: Path | None = None,
        rows: TokenizedRows | None = None,
        stop_after: str | None = None,
        callbacks: type[Recorder] | None = None,
        **settings: object,
    ) -> Recorder:
        """Train.

        Args:
            stop_after: name of the checkpoint after which the run is killed.
        """
        recipe = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "seed": 7, **settings}
        config = TrainConfig.model_validate(recipe)
        source = Backbone("tiny", str(backbone or self.tiny))
        self.runs += 1
        recorder = (callbacks or Recorder)(self.folder / str(self.runs), stop_after=stop_after)
        task = Task(config, source, Provenance(max_length=64))
        train_rows = self.train_rows if rows is None else rows
        with contextlib.suppress(Stopped):
            train(
                TrainingInputs(
                    task, train_rows, self.validation_rows, recorder, self.device, resume
                )
            )
        return recorder


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model" / "model.safetensors")


def initial(bench: Bench) -> dict[str, torch.Tensor]:
    return new_classifier(Backbone("tiny", str(bench.tiny)), seed=7).state_dict()


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two models' weights."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def without_dropout(tiny: Path, folder: Path) -> Path:
    """Copy the tiny BERT, without dropout in its config."""
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
