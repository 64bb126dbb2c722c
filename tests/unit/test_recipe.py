"""Each setting of the recipe has the effect that its description states."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_classifier, new_classifier
from finsent.modeling.provenance import Provenance
from finsent.training.accumulation import GradientAccumulator
from finsent.training.config import ClassWeights, TrainConfig
from finsent.training.distributed import DistributedContext
from finsent.training.epoch_meter import EpochMeter
from finsent.training.loss import (
    Weights,
    autocast_dtype,
    class_weights,
    forward,
    loss_sum,
    row_weights,
)
from finsent.training.metrics import EpochMetrics
from finsent.training.model import build_model
from finsent.training.task import Task
from finsent.training.validate import has_stalled
from tests.unit.loop_bench import (
    TRAIN_ROWS,
    Bench,
    distance,
    initial,
    rows_of,
    weights,
    without_dropout,
)
from tests.unit.metrics import epoch_metrics

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(4, "trains a tiny model")]

CPU = DistributedContext()


def recipe(**settings: object) -> TrainConfig:
    return TrainConfig.model_validate({"learning_rate": 0.003, "batch_size": 8, **settings})


@pytest.fixture(scope="module")
def no_dropout(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_dropout(tiny, tmp_path_factory.mktemp("still") / "backbone")


@pytest.fixture(scope="module")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny, tmp_path_factory.mktemp("recipe"))


def gradients(
    bench: Bench, model: PreTrainedModel, batch: Any, step_weights: Weights, **settings: object
) -> tuple[dict[str, torch.Tensor], EpochMeter]:
    """Return the gradients and the meter of one step."""
    config, meter = recipe(**settings), EpochMeter(CPU)
    model.zero_grad(set_to_none=True)
    model.train()
    GradientAccumulator(model, config, CPU, print).compute(
        bench.train_rows, step_weights, batch, meter
    )
    gradients_by_name = {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }
    return gradients_by_name, meter


# --- weights of rows ------------------------------------------------------------------------------


def test_weighted_smoothed_loss_equals_pytorch() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(9, 3, generator=generator), torch.arange(9) % 3
    ones = np.ones(9)
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(
            logits, labels, label_smoothing=smoothing, reduction="sum"
        )
        assert float(loss_sum(logits, labels, ones, smoothing)) == pytest.approx(float(expected))
    # With weights by class, the weighted means are equal.
    by_class = torch.tensor([1.0, 2.0, 0.5])
    expected = torch.nn.functional.cross_entropy(logits, labels, by_class)
    row_factors = by_class.numpy()[labels.numpy()].astype(np.float64)
    weighted_mean = float(loss_sum(logits, labels, row_factors, 0.0)) / row_factors.sum()
    assert weighted_mean == pytest.approx(float(expected))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.array([0] * 2 + [1] * 11 + [2] * 5)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    balanced = class_weights(labels, recipe(class_weights="balanced"))
    assert balanced == pytest.approx(expected)
    totals = [balanced[c] * (labels == c).sum() for c in range(3)]
    assert totals == pytest.approx([6, 6, 6])
    two = class_weights(np.array([0, 0, 2, 2]), recipe(class_weights="balanced"))
    assert np.isfinite(two).all()
    assert two[[0, 2]] == pytest.approx([1, 1])


def test_class_weights_by_label_and_none() -> None:
    config = recipe(class_weights={"negative": 3.0, "positive": 0.5})
    assert isinstance(config.class_weights, ClassWeights)
    labels = np.array([0, 1, 2])
    assert class_weights(labels, config).tolist() == [3.0, 1.0, 0.5]
    assert LABELS == ("negative", "neutral", "positive")
    assert class_weights(labels, recipe()).tolist() == [1.0, 1.0, 1.0]


def test_rows_count_by_agreement_weight_and_label_together(tiny: Path) -> None:
    rows = rows_of(tiny, 4, 0, agreement=[0.5, None, 0.75, 1.0], weight=[1.0, 2.0, 4.0, 1.0])
    assert row_weights(rows, recipe()).tolist() == [1, 2, 4, 1]
    linear = row_weights(rows, recipe(agreement_weight="linear"))
    assert linear.tolist() == [0.5, 2, 3, 1]
    both = recipe(agreement_weight="linear", class_weights={"negative": 10.0})
    assert row_weights(rows, both).tolist() == [5, 2, 3, 10]


def test_rows_without_these_columns_count_one(tiny: Path) -> None:
    assert row_weights(rows_of(tiny, 3, 0), recipe(agreement_weight="linear")).tolist() == [1, 1, 1]


def test_row_of_weight_two_counts_as_two_rows(bench: Bench, no_dropout: Path) -> None:
    model = new_classifier(Backbone("still", str(no_dropout)), 7)
    ones = np.ones(TRAIN_ROWS)
    twice = np.array([4, 9, 9, 17])
    expected, _ = gradients(bench, model, twice, ones)
    heavy = ones.copy()
    heavy[9] = 2
    weighted, meter = gradients(bench, model, np.array([4, 9, 17]), heavy)
    assert distance(weighted, expected) < 1e-6
    assert (meter.local().weight, meter.local().rows) == (4, 3)


def test_train_loss_is_the_weighted_mean(bench: Bench, no_dropout: Path, tiny: Path) -> None:
    agreement = [0.5 + (i % 3) / 4 for i in range(TRAIN_ROWS)]
    rows = rows_of(tiny, TRAIN_ROWS, 0, agreement=agreement)
    settings: dict[str, Any] = {"agreement_weight": "linear", "class_weights": {"neutral": 3.0}}
    run = bench.run(
        backbone=no_dropout, rows=rows, epochs=1, max_grad_norm=1e-16, weight_decay=0.0, **settings
    )
    model = new_classifier(Backbone("still", str(no_dropout)), 7).eval()
    batch = rows.batch(np.arange(TRAIN_ROWS))
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    losses = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none").numpy()
    expected_weights = row_weights(rows, recipe(**settings))
    assert len(set(expected_weights.tolist())) > 2
    expected = float((losses * expected_weights).sum() / expected_weights.sum())
    assert run.metrics[0].train_loss == pytest.approx(expected, rel=1e-4)
    assert run.metrics[0].train_loss != pytest.approx(float(losses.mean()), rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"label_smoothing": 0.2},
        {"class_weights": "balanced"},
        {"schedule": "cosine"},
        {"schedule": "constant"},
        {"warmup_steps": 9},
        {"layer_decay": 0.5},
        {"unfreeze_epochs": 1.0},
        {"dropout": 0.4},
        {"ema_decay": 0.99},
        {"batch_tokens": 128},
        {"precision": "fp16"},
    ],
    ids=lambda settings: next(iter(settings)) + "=" + str(next(iter(settings.values()))),
)
def test_the_setting_reaches_the_loop(bench: Bench, settings: dict[str, Any], tiny: Path) -> None:
    labels = ["negative"] + [LABELS[1 + i % 2] for i in range(40)]  # unbalanced
    rows = rows_of(tiny, 41, 0, label=labels)
    plain = bench.run(rows=rows, epochs=1)
    changed = bench.run(rows=rows, epochs=1, **settings)
    assert distance(weights(plain.last), weights(changed.last)) > 1e-5


# --- the same result by other means ---------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 8, 64])
def test_accumulation_gives_the_gradients_of_the_whole_batch(
    bench: Bench, no_dropout: Path, parts: int
) -> None:
    model = new_classifier(Backbone("still", str(no_dropout)), 7)
    row_factors = np.linspace(0.5, 2, TRAIN_ROWS)
    batch = np.arange(11, 22)
    expected, whole_meter = gradients(bench, model, batch, row_factors)
    accumulated, split_meter = gradients(bench, model, batch, row_factors, accumulation_steps=parts)
    assert accumulated.keys() == expected.keys()
    assert distance(accumulated, expected) < 1e-6
    assert split_meter.local().loss == pytest.approx(whole_meter.local().loss)
    assert split_meter.local().rows == 11
    assert split_meter.local().padded <= whole_meter.local().padded


def test_accumulation_computes_fewer_rows_at_a_time(bench: Bench) -> None:
    sizes: list[int] = []
    model = new_classifier(Backbone("tiny", str(bench.tiny)), 7)

    def record_size(batch: Any, _weights: Weights) -> torch.Tensor:
        sizes.append(len(batch.labels))
        return model.get_parameter("classifier.weight").sum()

    config = recipe(accumulation_steps=3)
    accumulator = GradientAccumulator(model, config, CPU, print, batch_loss=record_size)
    accumulator.compute(bench.train_rows, np.ones(TRAIN_ROWS), np.arange(8), EpochMeter(CPU))
    assert sizes == [3, 3, 2]


def test_gradient_checkpointing_saves_memory_and_changes_nothing(
    bench: Bench, no_dropout: Path
) -> None:
    batch = bench.train_rows.batch(np.arange(16))
    saved_sizes: list[int] = []  # sizes of tensors that the forward pass saves
    sizes, gradients_by_name = [], []

    def record_size(tensor: torch.Tensor) -> torch.Tensor:
        saved_sizes.append(tensor.numel())
        return tensor

    for saving in (False, True):
        config = recipe(gradient_checkpointing=saving)
        task = Task(config, Backbone("still", str(no_dropout)), Provenance(max_length=64))
        model = build_model(task, torch.device("cpu"))
        model.train()
        saved_sizes.clear()
        with torch.autograd.graph.saved_tensors_hooks(record_size, lambda tensor: tensor):
            logits = forward(model, batch, torch.device("cpu"))
        sizes.append(sum(saved_sizes))
        logits.square().sum().backward()
        gradients_by_name.append(
            {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        )
    assert sizes[1] < sizes[0] / 2
    assert distance(gradients_by_name[1], gradients_by_name[0]) < 1e-5


def test_gradient_checkpointing_reaches_the_loop(bench: Bench, no_dropout: Path) -> None:
    plain = bench.run(backbone=no_dropout, epochs=1)
    saving = bench.run(backbone=no_dropout, epochs=1, gradient_checkpointing=True)
    assert distance(weights(plain.last), weights(saving.last)) < 1e-5


def test_compiled_model_trains_as_the_plain_one(
    bench: Bench, no_dropout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend does not compile C++, which takes minutes."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain = bench.run(backbone=no_dropout, epochs=1)
    before = counters["stats"]["unique_graphs"]
    compiled = bench.run(backbone=no_dropout, epochs=1, compile=True)
    assert counters["stats"]["unique_graphs"] > before
    assert distance(weights(plain.last), weights(compiled.last)) < 1e-5
    # The names have no prefix of the wrapper.
    assert weights(plain.last).keys() == weights(compiled.last).keys()


# --- number formats -------------------------------------------------------------------------------


def test_auto_is_fp32_on_a_cpu_and_bf16_on_a_gpu() -> None:
    assert autocast_dtype(recipe(), torch.device("cpu")) is None
    assert autocast_dtype(recipe(), torch.device("cuda")) == torch.bfloat16
    assert autocast_dtype(recipe(precision="fp16"), torch.device("cuda")) == torch.float16
    assert autocast_dtype(recipe(precision="fp32"), torch.device("cuda")) is None


def test_fp16_scales_the_loss_and_learns_like_fp32(bench: Bench) -> None:
    half, exact = bench.run(precision="fp16"), bench.run(precision="fp32")
    state = json.loads((half.last / "state.json").read_text())
    assert state["scaler"]["scale"] > 1
    assert json.loads((exact.last / "state.json").read_text())["scaler"] is None
    assert {tensor.dtype for tensor in weights(half.last).values()} == {torch.float32}
    half_loss, exact_loss = half.metrics[-1].train_loss, exact.metrics[-1].train_loss
    assert half_loss == pytest.approx(exact_loss, rel=0.15)


# --- dropout, averages, stopping ------------------------------------------------------------------


def test_dropout_overrides_every_dropout_of_the_backbone(tiny: Path) -> None:
    def rates(dropout: float | None) -> set[float]:
        model = new_classifier(Backbone("tiny", str(tiny)), 1, dropout)
        config = model.config
        module_rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
        return module_rates | {config.hidden_dropout_prob, config.attention_probs_dropout_prob}

    assert rates(None) == {0.1}
    assert rates(0.0) == {0.0}
    assert rates(0.35) == {0.35}


def test_average_lags_behind_and_is_evaluated_and_saved(bench: Bench) -> None:
    plain, averaged = bench.run(), bench.run(ema_decay=0.999)
    start = initial(bench)
    average, last = weights(averaged.last), weights(plain.last)
    name = "classifier.weight"
    assert 0 < (average[name] - start[name]).norm() < (last[name] - start[name]).norm()
    model = load_classifier(averaged.last / "model")
    rows = bench.validation_rows
    batch = rows.batch(np.arange(len(rows)))
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    loss = float(torch.nn.functional.cross_entropy(logits, batch.labels))
    assert averaged.metrics[-1].validation_loss == pytest.approx(loss, rel=1e-4)
    # The average does not change the training.
    assert averaged.metrics[-1].train_loss == plain.metrics[-1].train_loss


def test_average_is_the_exponential_one(bench: Bench) -> None:
    from finsent.training.ema import ExponentialMovingAverage

    model = new_classifier(Backbone("tiny", str(bench.tiny)), 7)
    average, bias = ExponentialMovingAverage(model, 0.3), model.get_parameter("classifier.bias")
    expected: torch.Tensor = bias.detach().clone()
    for step in range(6):
        with torch.no_grad():
            bias.add_(step + 1)
        average.update(model, step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * bias.detach()
    averaged_bias = average.model.get_parameter("classifier.bias")
    torch.testing.assert_close(averaged_bias, expected)
    assert not averaged_bias.requires_grad


def scores(*values: float) -> list[EpochMetrics]:
    return [epoch_metrics(epoch, macro_f1=value) for epoch, value in enumerate(values, 1)]


def test_patience() -> None:
    assert not has_stalled([], 1)
    assert not has_stalled(scores(0.5), 1)
    assert not has_stalled(scores(0.5, 0.6), 1)
    assert has_stalled(scores(0.6, 0.6), 1)  # an equal value is no rise
    assert not has_stalled(scores(0.6, 0.5), 2)
    assert has_stalled(scores(0.6, 0.5, 0.59), 2)
    assert not has_stalled(scores(0.6, 0.5, 0.61), 2)
    assert not has_stalled(scores(0.6, 0.1, 0.1, 0.1), None)


def test_run_without_progress_stops_early_with_a_note(bench: Bench) -> None:
    """The learning rate is too small to change the metrics."""
    run = bench.run(epochs=9, learning_rate=1e-12, patience=2)
    assert [m.epoch for m in run.metrics] == [1, 2, 3]
    [note] = run.notes
    assert "stopped after epoch 3" in note
    assert "train.patience" in note
    again = bench.run(epochs=9, learning_rate=1e-12, patience=2, resume=run.last)
    assert again.metrics == []


# --- refusals -------------------------------------------------------------------------------------


def test_budget_below_a_row_is_refused(bench: Bench) -> None:
    with pytest.raises(InputError, match=r"train\.batch_tokens=63.*model\.max_length=64"):
        bench.run(batch_tokens=63)


# --- elastic runs ---------------------------------------------------------------------------------


def test_fewer_workers_of_an_elastic_run_use_more_micro_batches() -> None:
    elastic = recipe(num_workers=[1, 4], accumulation_steps=2)
    assert (elastic.min_workers, elastic.max_workers) == (1, 4)
    assert [elastic.micro_batches(workers) for workers in (4, 3, 2, 1)] == [2, 3, 4, 8]
    fixed = recipe(num_workers=4, accumulation_steps=2)
    assert (fixed.min_workers, fixed.max_workers) == (4, 4)
    assert [fixed.micro_batches(workers) for workers in (4, 1)] == [2, 2]  # as under torchrun


def test_elastic_run_trains_the_same_weights(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    no_dropout = without_dropout(tiny, tmp_path / "still")
    fixed = bench.run(backbone=no_dropout, num_workers=1)
    elastic = bench.run(
        backbone=no_dropout, num_workers=[1, 4]
    )  # one worker with four micro-batches
    assert distance(weights(fixed.last), weights(elastic.last)) < 1e-5
