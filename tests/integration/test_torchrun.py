"""Training in two processes, as torchrun starts them, equals training in one process.

`tests.integration.ranks` starts the processes. `tests/slow` uses torchrun's own launcher.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.provenance import Provenance
from finsent.runs import MODEL_DIR
from finsent.training.checkpoint import (
    epoch_checkpoint_name,
    find_damage,
    list_checkpoints,
)
from finsent.training.config import TrainConfig
from finsent.training.metrics_log import read_steps
from finsent.training.standalone import HISTORY_FILE, main, write_spec
from finsent.training.task import Task
from finsent.training.tokens import tokenize
from tests.integration.ranks import Ranks, run_ranks
from tests.integration.two_ranks import shared_decisions
from tests.unit.loop_bench import without_dropout

EPOCHS = 8
# The last batch of 8 has a single row, so that one of two processes has none.
TRAIN_ROWS, VALIDATION_ROWS, BATCH_SIZE = 49, 31, 8
STEPS = 7  # an epoch
WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    folder: Path
    history: list[dict[str, Any]]
    weights: dict[str, torch.Tensor]

    @property
    def steps(self) -> list[int]:
        """The logged steps."""
        return [line.step for line in read_steps(self.folder)]


def tokens(backbone: Path, count: int, start: int) -> pa.Table:
    numbers = range(start, start + count)
    labels = [LABELS[i % 3] for i in numbers]
    texts = [f"Unit {i}: {WORDS[LABELS[i % 3]]}{' today' * (i % 9)}" for i in numbers]
    keys = [f"{i:06d}" for i in numbers]
    agreement = [None if i % 4 == 0 else 0.5 + (i % 3) / 4 for i in numbers]
    weight = [1.0 + i % 2 for i in numbers]
    rows = pa.table(
        {"key": keys, "text": texts, "label": labels, "agreement": agreement, "weight": weight}
    )
    return tokenize(rows, str(backbone), None, 64)


@pytest.fixture(scope="module")
def no_dropout(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout, whose random numbers differ from rank to rank."""
    return without_dropout(tiny, tmp_path_factory.mktemp("still") / "backbone")


def prepare(backbone: Path, folder: Path, **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    recipe = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 5e-3, "seed": 7}
    config = TrainConfig.model_validate({**recipe, "use_gpu": "no", **settings})
    task = Task(config, Backbone("tiny", str(backbone)), Provenance(max_length=64))
    splits = {
        "train": tokens(backbone, TRAIN_ROWS, 0),
        "validation": tokens(backbone, VALIDATION_ROWS, TRAIN_ROWS),
    }
    return write_spec(folder, task, splits)


def outcome(folder: Path) -> Outcome:
    weights = load_file(list_checkpoints(folder)[-1].folder / MODEL_DIR / "model.safetensors")
    return Outcome(folder, json.loads((folder / HISTORY_FILE).read_text()), weights)


def run(backbone: Path, folder: Path, processes: int, **settings: object) -> Outcome:
    run_ranks(processes, main, prepare(backbone, folder, **settings))
    return outcome(folder)


def assert_same(
    actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float
) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=atol, msg=name)


# All kinds of row weights: with micro-batches, the mean must be that of the whole batch.
WEIGHTED: dict[str, Any] = {
    "agreement_weight": "linear",
    "class_weights": {"negative": 3.0},
    "label_smoothing": 0.1,
    "log_every_steps": 3,
}


@pytest.fixture(scope="module")
def alone(no_dropout: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(no_dropout, tmp_path_factory.mktemp("alone"), processes=1, **WEIGHTED)


@pytest.fixture(scope="module")
def paired(no_dropout: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("paired")
    return run(no_dropout, folder, processes=2, accumulation_steps=2, **WEIGHTED)


def test_every_row_counts_once_each_epoch(paired: Outcome) -> None:
    assert [m["epoch"] for m in paired.history] == [*range(1, EPOCHS + 1)]
    assert [m["train_rows"] for m in paired.history] == [TRAIN_ROWS] * EPOCHS
    assert [m["validation_rows"] for m in paired.history] == [VALIDATION_ROWS] * EPOCHS
    for metrics in paired.history:
        matrix = torch.tensor(metrics["validation_confusion"])
        assert int(matrix.sum()) == VALIDATION_ROWS
        truth = [
            sum(i % 3 == label for i in range(TRAIN_ROWS, TRAIN_ROWS + VALIDATION_ROWS))
            for label in range(3)
        ]
        assert matrix.sum(1).tolist() == truth


def test_two_processes_train_as_one_does(alone: Outcome, paired: Outcome) -> None:
    # Softmax is blind to it: its gradient is rounding noise, which AdamW enlarges.
    blind = {name for name in alone.weights if name.endswith("attention.self.key.bias")}
    assert alone.weights.keys() == paired.weights.keys() > blind
    assert_same(
        {k: v for k, v in paired.weights.items() if k not in blind},
        {k: v for k, v in alone.weights.items() if k not in blind},
        atol=1e-4,
    )
    for metrics, expected_metrics in zip(paired.history, alone.history, strict=True):
        for key in ("validation_confusion", "learning_rate", "train_rows"):
            assert metrics[key] == expected_metrics[key]
        for key in ("train_loss", "validation_loss", "accuracy", "macro_f1"):
            assert metrics[key] == pytest.approx(expected_metrics[key], rel=1e-4)


def test_compared_run_learns(paired: Outcome) -> None:
    assert paired.history[-1]["train_loss"] < 0.7 * paired.history[0]["train_loss"]


def test_two_killed_processes_resume_and_end_as_uninterrupted_ones(
    no_dropout: Path, paired: Outcome, tmp_path: Path
) -> None:
    spec = prepare(no_dropout, tmp_path, accumulation_steps=2, checkpoint_every_steps=4, **WEIGHTED)
    with Ranks(2, main, spec) as ranks:
        deadline = time.monotonic() + 120
        while not [*tmp_path.glob("checkpoint_step_*/state.json")]:
            assert time.monotonic() < deadline
            assert ranks.alive
            time.sleep(0.005)  # polling a directory, with the deadline above
    newest = list_checkpoints(tmp_path)[-1]
    assert (newest.epoch, newest.step) < (EPOCHS, 0), "it had already ended"
    run_ranks(2, main, spec)
    resumed = outcome(tmp_path)
    assert [m["train_rows"] for m in resumed.history] == [TRAIN_ROWS] * EPOCHS
    assert_same(resumed.weights, paired.weights, atol=1e-5)
    for resumed_metrics, expected in zip(resumed.history, paired.history, strict=True):
        assert resumed_metrics["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-6)
    assert resumed.steps == sorted(set(resumed.steps))  # each once, those before the kill included
    assert resumed.steps[-1] == EPOCHS * STEPS
    assert (tmp_path / "training.png").stat().st_size > 10_000


def test_after_damage_two_processes_resume_in_mid_epoch(tiny: Path, tmp_path: Path) -> None:
    """With dropout: each rank continues with its own random numbers."""
    settings = {"epochs": 2, "checkpoint_every_steps": 4, "log_every_steps": 2}
    uninterrupted = run(tiny, tmp_path / "run", 2, **settings)
    last = uninterrupted.folder / epoch_checkpoint_name(2)
    with (last / "optimizer.safetensors").open("r+b") as stream:
        stream.truncate(1000)
    resumed = run(tiny, uninterrupted.folder, 2, **settings)
    assert resumed.history[0] == uninterrupted.history[0]  # not trained again
    assert resumed.history[1]["began"] > uninterrupted.history[1]["began"]
    assert_same(resumed.weights, uninterrupted.weights, atol=1e-5)
    assert find_damage(last) is None  # written anew
    assert resumed.steps == sorted({*range(2, 2 * STEPS + 1, 2), STEPS})


@pytest.mark.cost(8, "three trainings by two processes")
def test_other_front_ends_with_two_processes_train_the_same_model(
    tiny: Path, tmp_path: Path
) -> None:
    outcomes = {
        name: run(tiny, tmp_path / name, 2, trainer=name, epochs=2)
        for name in ("native", "transformers", "lightning")
    }
    native = outcomes.pop("native")
    for name, other in outcomes.items():
        assert [m["train_rows"] for m in other.history] == [TRAIN_ROWS] * 2, name
        scores = [[m["macro_f1"] for m in result.history] for result in (native, other)]
        assert scores[0] == scores[1], name
        assert_same(other.weights, native.weights, atol=1e-4)
        assert (tmp_path / name / "training.png").is_file()


def test_two_ranks_agree_on_memory_and_on_bad_numbers(no_dropout: Path) -> None:
    first, second = run_ranks(2, shared_decisions, no_dropout)
    for decisions in (first, second):
        # 12 and 11 rows; only the second rank lacks memory.
        assert decisions["small"]["parts"] == 4
        assert decisions["small"]["notes"] == 2
        assert decisions["small"]["careful"] < 1e-6
        assert decisions["small"]["overlapped"] < 1e-6
        assert decisions["small"]["careful_rows"] == decisions["small"]["overlapped_rows"] == 23
        assert "a row of" in decisions["none"]["error"]
        assert decisions["bad_step"] == 2
    assert first["small"]["careful_tried"] == [12, 6, 6, 3, 3, 3, 3]
    assert second["small"]["careful_tried"] == [11, 6, 3, 3, 3, 2]
    assert first["small"]["overlapped_tried"] == [3, 3, 3, 3]
