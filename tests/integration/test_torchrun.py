"""The loop under torchrun: two processes count every row once and train as one does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.training.checkpoint import MODEL, saved_checkpoints
from finsent.training.config import TrainConfig
from finsent.training.standalone import HISTORY, write_spec
from finsent.training.task import Task
from finsent.training.tokens import tokenise

EPOCHS = 10
# Batches of 8 leave one of a single row, which one of two processes has no part in.
TRAIN_ROWS, VALIDATION_ROWS, BATCH_SIZE = 49, 31, 8
WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}


@dataclass(frozen=True)
class Done:
    """What a run left behind."""

    history: list[dict[str, Any]]
    weights: dict[str, torch.Tensor]


def tokens(backbone: Path, count: int, start: int) -> pa.Table:
    numbers = range(start, start + count)
    labels = [LABELS[i % 3] for i in numbers]
    texts = [f"Unit {i}: {WORDS[LABELS[i % 3]]}{' today' * (i % 9)}" for i in numbers]
    keys = [f"{i:06d}" for i in numbers]
    rows = pa.table({"key": keys, "text": texts, "label": labels})
    return tokenise(rows, str(backbone), None, 64)


@pytest.fixture(scope="module")
def still(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without dropout, whose random numbers differ from rank to rank."""
    folder = tmp_path_factory.mktemp("still") / "backbone"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(backbone: Path, folder: Path, processes: int) -> Done:
    config = TrainConfig(
        epochs=EPOCHS, batch_size=BATCH_SIZE, learning_rate=5e-3, seed=7, use_gpu="no"
    )
    task = Task(config, Backbone("tiny", str(backbone)), {"max_length": 64})
    splits = {
        "train": tokens(backbone, TRAIN_ROWS, 0),
        "validation": tokens(backbone, VALIDATION_ROWS, TRAIN_ROWS),
    }
    spec = write_spec(folder, task, splits)
    module = ["-m", "finsent.training.standalone", str(spec)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    finish([sys.executable, *(launcher if processes > 1 else []), *module])
    return Done(
        json.loads((folder / HISTORY).read_text()),
        load_file(saved_checkpoints(folder)[-1].folder / MODEL / "model.safetensors"),
    )


def finish(command: list[str]) -> None:
    """Run to the end; whatever happens, leave none of its processes behind."""
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=150)
        assert process.returncode == 0, output[-4000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def alone(still: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run(still, tmp_path_factory.mktemp("alone"), processes=1)


@pytest.fixture(scope="module")
def paired(still: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run(still, tmp_path_factory.mktemp("paired"), processes=2)


def test_every_row_counts_once_each_epoch(paired: Done) -> None:
    assert [m["epoch"] for m in paired.history] == [*range(1, EPOCHS + 1)]
    assert [m["train_rows"] for m in paired.history] == [TRAIN_ROWS] * EPOCHS
    assert [m["validation_rows"] for m in paired.history] == [VALIDATION_ROWS] * EPOCHS
    for metrics in paired.history:
        matrix = torch.tensor(metrics["validation_confusion"])
        assert int(matrix.sum()) == VALIDATION_ROWS
        truth = [sum(i % 3 == label for i in range(TRAIN_ROWS, TRAIN_ROWS + VALIDATION_ROWS))
                 for label in range(3)]  # fmt: skip
        assert matrix.sum(1).tolist() == truth


def test_two_processes_train_as_one_does(alone: Done, paired: Done) -> None:
    assert alone.weights.keys() == paired.weights.keys()
    for name, expected in alone.weights.items():
        if name.endswith("attention.self.key.bias"):
            continue  # softmax is blind to it: its gradient is rounding noise, which AdamW enlarges
        torch.testing.assert_close(paired.weights[name], expected, rtol=0, atol=1e-4, msg=name)
    for found, expected_metrics in zip(paired.history, alone.history, strict=True):
        for key in ("validation_confusion", "learning_rate", "train_rows"):
            assert found[key] == expected_metrics[key]
        for key in ("train_loss", "validation_loss", "accuracy", "macro_f1"):
            assert found[key] == pytest.approx(expected_metrics[key], rel=1e-4)


def test_the_comparison_is_of_a_run_that_learns(paired: Done) -> None:
    assert paired.history[-1]["train_loss"] < 0.7 * paired.history[0]["train_loss"]
