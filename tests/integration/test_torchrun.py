"""The loop under torchrun: two processes count every row once and train as one does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.training.checkpoint import MODEL, saved_checkpoints
from finsent.training.config import TrainConfig
from finsent.training.outputs import read_journal
from finsent.training.standalone import HISTORY, write_spec
from finsent.training.task import Task
from finsent.training.tokens import tokenise
from tests.unit.loop_bench import without_dropout

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
    agreement = [None if i % 4 == 0 else 0.5 + (i % 3) / 4 for i in numbers]
    weight = [1.0 + i % 2 for i in numbers]
    rows = pa.table({"key": keys, "text": texts, "label": labels,
                     "agreement": agreement, "weight": weight})  # fmt: skip
    return tokenise(rows, str(backbone), None, 64)


@pytest.fixture(scope="module")
def still(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout, whose random numbers differ from rank to rank."""
    return without_dropout(tiny, tmp_path_factory.mktemp("still") / "backbone")


def prepare(backbone: Path, folder: Path, **settings: object) -> Path:
    recipe = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 5e-3, "seed": 7}
    config = TrainConfig.model_validate({**recipe, "use_gpu": "no", **settings})
    task = Task(config, Backbone("tiny", str(backbone)), {"max_length": 64})
    splits = {
        "train": tokens(backbone, TRAIN_ROWS, 0),
        "validation": tokens(backbone, VALIDATION_ROWS, TRAIN_ROWS),
    }
    return write_spec(folder, task, splits)


def command(spec: Path, processes: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    module = ["-m", "finsent.training.standalone", str(spec)]
    return [sys.executable, *(launcher if processes > 1 else []), *module]


def outcome(folder: Path) -> Done:
    return Done(
        json.loads((folder / HISTORY).read_text()),
        load_file(saved_checkpoints(folder)[-1].folder / MODEL / "model.safetensors"),
    )


def run(backbone: Path, folder: Path, processes: int, **settings: object) -> Done:
    finish(command(prepare(backbone, folder, **settings), processes))
    return outcome(folder)


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    """The launcher and its workers, which are sessions of their own."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate(timeout=30)


def finish(command: list[str]) -> None:
    """Run to the end; whatever happens, leave none of its processes behind."""
    process = start(command)
    try:
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output[-4000:]
    finally:
        if process.poll() is None:
            kill(process)


# Weights of every kind, and micro-batches: the mean must stay that of the whole batch.
WEIGHTED: dict[str, Any] = {
    "agreement_weight": "linear", "class_weights": {"negative": 3.0}, "label_smoothing": 0.1,
    "log_every_steps": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def alone(still: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run(still, tmp_path_factory.mktemp("alone"), processes=1, **WEIGHTED)


@pytest.fixture(scope="module")
def paired(still: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("paired")
    return run(still, folder, processes=2, accumulation_steps=2, **WEIGHTED)


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


def test_killed_in_mid_epoch_two_processes_end_as_the_undisturbed_ones(
    still: Path, paired: Done, tmp_path: Path
) -> None:
    spec = prepare(still, tmp_path, accumulation_steps=2, checkpoint_every_steps=4, **WEIGHTED)
    process = start(command(spec, 2))
    try:
        deadline = time.monotonic() + 120
        while not [*tmp_path.glob("checkpoint_step_*/state.json")]:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)  # polling a directory, with the deadline above
    finally:
        kill(process)
    newest = saved_checkpoints(tmp_path)[-1]
    assert (newest.epoch, newest.step) < (EPOCHS, 0), "it had already ended"
    finish(command(spec, 2))
    resumed = outcome(tmp_path)
    assert [m["train_rows"] for m in resumed.history] == [TRAIN_ROWS] * EPOCHS
    for name, expected in paired.weights.items():
        torch.testing.assert_close(resumed.weights[name], expected, rtol=0, atol=1e-5, msg=name)
    for found, metrics in zip(resumed.history, paired.history, strict=True):
        assert found["train_loss"] == pytest.approx(metrics["train_loss"], rel=1e-6)
    steps = [line["step"] for line in read_journal(tmp_path) if line["kind"] == "step"]
    assert steps == sorted(set(steps))  # each once, those before the kill included
    assert steps[-1] == EPOCHS * 7
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_two_ranks_agree_on_memory_and_on_bad_numbers(still: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    module = ["-m", "tests.integration.two_ranks", str(still), str(tmp_path)]
    finish([sys.executable, *launcher, *module])
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for found in (first, second):
        # 12 and 11 rows; only the second rank lacks memory.
        assert found["small"]["parts"] == 4
        assert found["small"]["notes"] == 2
        assert found["small"]["careful"] < 1e-6
        assert found["small"]["overlapped"] < 1e-6
        assert found["small"]["careful_rows"] == found["small"]["overlapped_rows"] == 23
        assert "one row" in found["none"]["error"]
        assert found["bad_step"] == 2
    assert first["small"]["careful_tried"] == [12, 6, 6, 3, 3, 3, 3]
    assert second["small"]["careful_tried"] == [11, 6, 3, 3, 3, 2]
    assert first["small"]["overlapped_tried"] == [3, 3, 3, 3]
