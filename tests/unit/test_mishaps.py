"""Training when numbers overflow or memory runs out; one seed gives one result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from finsent.errors import DivergenceError, InputError
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import new_classifier
from finsent.training.accumulation import GradientAccumulator
from finsent.training.checkpoint import epoch_checkpoint_name, step_checkpoint_name
from finsent.training.config import TrainConfig
from finsent.training.distributed import DistributedContext
from finsent.training.epoch_meter import EpochMeter
from finsent.training.loss import Weights, forward, loss_sum
from finsent.training.tokens import Batch, TokenizedRows
from tests.unit.loop_bench import (
    TRAIN_ROWS,
    Bench,
    Recorder,
    distance,
    rows_of,
    weights,
    without_dropout,
)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1, "trains a tiny model")]

CPU = DistributedContext()


@pytest.fixture(scope="module")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny, tmp_path_factory.mktemp("mishaps"))


# --- numbers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overflowing(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that overflows at an unknown token."""
    folder = tmp_path_factory.mktemp("broken") / "backbone"
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    unknown = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["[UNK]"]
    tensors[name][unknown] = 3e38  # finite, and its layer norm is not
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def with_an_unknown_token(tiny: Path, index: int) -> TokenizedRows:
    texts = [f"Unit {i}: profit rose" for i in range(TRAIN_ROWS)]
    texts[index] = "利益"
    return rows_of(tiny, TRAIN_ROWS, 0, text=texts)


@pytest.mark.parametrize("log_every", [1, 5, 1000])
def test_non_finite_loss_names_step_rows_and_checkpoint(
    bench: Bench, overflowing: Path, log_every: int
) -> None:
    """The error names the step of the bad loss, not the step of the check."""
    rows = with_an_unknown_token(bench.tiny, 57)
    with pytest.raises(InputError) as caught:
        bench.run(
            backbone=overflowing,
            rows=rows,
            log_every_steps=log_every,
            checkpoint_every_steps=2,
            bucket_batches=1,
        )
    text = str(caught.value)
    assert "\n" not in text
    named = text.partition("on rows ")[2].partition(";")[0].split(", ")
    assert "000057" in named
    assert len(named) == 8
    step = int(text.partition("epoch 1, step ")[2].partition(" ")[0])
    written = sorted(path.name for path in (bench.folder / str(bench.runs)).glob("checkpoint_*"))
    expected_names = [step_checkpoint_name(s) for s in range(2, step, 2)]
    assert written == expected_names  # none has non-finite weights
    assert f"last good checkpoint: {expected_names[-1] if expected_names else 'none'}" in text
    assert "train.learning_rate=0.003" in text


def test_non_finite_validation_loss_stops_before_the_checkpoint(
    bench: Bench, overflowing: Path, tmp_path: Path
) -> None:
    """Otherwise the epoch would be the best: NaN logits also give a label."""
    other_bench = Bench(bench.tiny, tmp_path)
    other_bench.validation_rows = with_an_unknown_token(bench.tiny, 3)
    with pytest.raises(DivergenceError, match="validation loss is not a finite number after epoch"):
        other_bench.run(backbone=overflowing, epochs=1)
    assert not [*tmp_path.glob("*/checkpoint_*")]


def test_run_that_diverges_stops_before_its_checkpoint(bench: Bench) -> None:
    first_run = bench.run(epochs=1)
    with pytest.raises(InputError) as caught:
        bench.run(epochs=2, resume=first_run.last, max_loss=0.001)
    text = str(caught.value)
    assert "in epoch 2, above train.max_loss=0.001" in text
    assert f"last good checkpoint: {epoch_checkpoint_name(1)}" in text


def test_infinite_gradient_is_found_though_the_loss_is_finite() -> None:
    meter = EpochMeter(CPU)
    for step in range(3):
        meter.begin_step(step)
        meter.check_finite(torch.tensor(1.0))
    assert meter.bad_step() is None
    meter.begin_step(3)
    meter.check_finite(torch.tensor(float("inf")))
    meter.begin_step(4)
    meter.check_finite(torch.tensor(float("nan")))
    assert meter.bad_step() == 3


# --- memory ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def no_dropout(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_dropout(tiny, tmp_path_factory.mktemp("still") / "backbone")


class LimitedMemory:
    """A device with memory for a number of rows."""

    def __init__(self, backbone: Path, rows: int, **settings: object) -> None:
        self.model = new_classifier(Backbone("still", str(backbone)), 7)
        self.max_rows = rows
        self.tried: list[int] = []
        self.notes: list[str] = []
        config = TrainConfig.model_validate({"learning_rate": 0.01, **settings})
        self.accumulator = GradientAccumulator(
            self.model,
            config,
            CPU,
            self.notes.append,
            batch_loss=self.batch_loss,
            checks_memory=True,
        )

    def batch_loss(self, batch: Batch, given: Weights) -> torch.Tensor:
        self.tried.append(len(batch.labels))
        loss = loss_sum(forward(self.model, batch, CPU.device), batch.labels, given, 0.0)
        if len(batch.labels) > self.max_rows:
            raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")
        return loss

    def step(self, rows: TokenizedRows, size: int) -> tuple[dict[str, torch.Tensor], EpochMeter]:
        meter = EpochMeter(CPU)
        self.model.zero_grad(set_to_none=True)
        self.accumulator.compute(rows, np.ones(len(rows)), np.arange(size), meter)
        gradients = {
            n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None
        }
        return gradients, meter


def test_micro_batch_is_halved_until_it_fits(bench: Bench, no_dropout: Path) -> None:
    expected, _ = LimitedMemory(no_dropout, 1000).step(bench.train_rows, 16)
    small = LimitedMemory(no_dropout, 5)
    gradients, meter = small.step(bench.train_rows, 16)
    assert distance(gradients, expected) < 1e-6
    assert small.tried == [16, 8, 4, 4, 4, 4]
    assert (small.accumulator.micro_batches, meter.local().rows) == (4, 16)
    assert len(small.notes) == 2
    assert "micro-batches of 16 rows" in small.notes[0]
    assert "train.accumulation_steps=4" in small.notes[1]
    small.tried.clear()
    small.step(bench.train_rows, 16)  # the number of micro-batches stays for the rest of the run
    assert small.tried == [4, 4, 4, 4]


def test_gradients_from_before_memory_ran_out_are_dropped(bench: Bench, no_dropout: Path) -> None:
    """The second micro-batch fails: the gradients of the first must be dropped."""
    expected, _ = LimitedMemory(no_dropout, 1000).step(bench.train_rows, 7)
    small = LimitedMemory(no_dropout, 1000, accumulation_steps=2)
    plain = small.batch_loss
    failed: list[bool] = []

    def fail_once(batch: Batch, given: Weights) -> torch.Tensor:
        if len(small.tried) == 1 and not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("out of memory")
        return plain(batch, given)

    small.accumulator = GradientAccumulator(
        small.model,
        TrainConfig(learning_rate=0.01, accumulation_steps=2),
        CPU,
        small.notes.append,
        batch_loss=fail_once,
        checks_memory=True,
    )
    gradients, meter = small.step(bench.train_rows, 7)
    assert failed
    assert distance(gradients, expected) < 1e-6
    assert meter.local().rows == 7


def test_no_more_micro_batches_than_rows_are_tried(bench: Bench, no_dropout: Path) -> None:
    small = LimitedMemory(no_dropout, 1, accumulation_steps=64)
    small.step(bench.train_rows, 3)
    assert small.tried == [1, 1, 1]
    big = LimitedMemory(no_dropout, 2, accumulation_steps=1)
    big.step(bench.train_rows, 3)
    assert big.tried == [3, 2, 1]


def test_no_memory_for_one_row_is_refused_with_numbers(bench: Bench, no_dropout: Path) -> None:
    small = LimitedMemory(no_dropout, 0)
    with pytest.raises(InputError) as caught:
        small.step(bench.train_rows, 8)
    text = str(caught.value)
    assert f"a row of {bench.train_rows.lengths[:8].max()} tokens" in text
    assert "2.00 GiB" in text
    assert "model.max_length" in text
    assert "train.gradient_checkpointing=true" in text
    assert [size for size in small.tried if size > 1] == [8, 4, 2]


# --- one seed, one result -------------------------------------------------------------------------


def test_deterministic_is_on_in_the_run_and_off_after_it(bench: Bench) -> None:
    modes: list[bool] = []

    class RecordsMode(Recorder):
        def on_start(self, step: int) -> None:
            modes.append(torch.are_deterministic_algorithms_enabled())
            super().on_start(step)

    default = bench.run(callbacks=RecordsMode)
    deterministic = [bench.run(callbacks=RecordsMode, deterministic=True) for _ in range(2)]
    assert modes == [False, True, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert distance(weights(deterministic[0].last), weights(deterministic[1].last)) == 0
    assert (
        distance(weights(deterministic[0].last), weights(default.last)) == 0
    )  # a CPU is deterministic by default
