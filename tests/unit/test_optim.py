"""Parameter groups of AdamW, gradual unfreezing, and the learning-rate schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Embedding, LayerNorm, Linear
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import new_classifier
from finsent.training.config import TrainConfig
from finsent.training.optim import (
    build_optimizer,
    build_schedule,
    learning_rate_factor,
    parameter_depths,
)
from finsent.training.unfreezing import GradualUnfreezing


@pytest.fixture(scope="module")
def model(tiny: Path) -> PreTrainedModel:
    return new_classifier(Backbone("tiny", str(tiny)), seed=1)


def recipe(**settings: object) -> TrainConfig:
    values: dict[str, object] = {"learning_rate": 0.01, "weight_decay": 0.2, **settings}
    return TrainConfig.model_validate(values)


def rates(total: int, done: int = 0, **settings: object) -> list[float]:
    """Return the rate of each step from `done` on, by steps of a real optimizer."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    schedule = build_schedule(optimizer, recipe(**settings), total, done)
    step_rates = []
    for _ in range(done, total):
        step_rates.append(float(optimizer.param_groups[0]["lr"]))
        weight.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
    step_rates.append(float(optimizer.param_groups[0]["lr"]))
    return step_rates


# --- groups ---------------------------------------------------------------------------------------


def test_matrices_decay_and_biases_and_layer_norms_do_not(model: PreTrainedModel) -> None:
    decay = {
        id(parameter): group["weight_decay"]
        for group in build_optimizer(model, recipe()).param_groups
        for parameter in group["params"]
    }
    checked = 0
    for module in model.modules():
        if isinstance(module, Linear | Embedding):
            assert decay.pop(id(module.weight)) == 0.2
            checked += 1
        if isinstance(module, LayerNorm):
            assert decay.pop(id(module.weight)) == 0
        if isinstance(module, Linear | LayerNorm):
            assert decay.pop(id(module.bias)) == 0
    assert checked > 10
    assert not decay  # every parameter is in one group


def test_frozen_parameters_are_not_in_the_optimizer(tiny: Path) -> None:
    model = new_classifier(Backbone("tiny", str(tiny)), seed=1)
    frozen = model.get_input_embeddings().weight
    frozen.requires_grad = False
    groups = build_optimizer(model, recipe()).param_groups
    optimized = {id(p) for group in groups for p in group["params"]}
    assert id(frozen) not in optimized
    assert len(optimized) == len([*model.parameters()]) - 1


def test_every_group_starts_at_the_configured_rate(model: PreTrainedModel) -> None:
    groups = build_optimizer(model, recipe(learning_rate=0.003)).param_groups
    assert [group["lr"] for group in groups] == [0.003, 0.003]


# --- layers ---


def test_depths_count_from_the_head(model: PreTrainedModel) -> None:
    depths = parameter_depths(model, recipe())
    assert depths["classifier.weight"] == depths["bert.pooler.dense.weight"] == 0
    assert depths["bert.encoder.layer.1.output.dense.weight"] == 1
    assert depths["bert.encoder.layer.0.output.dense.weight"] == 2
    assert depths["bert.embeddings.word_embeddings.weight"] == 3
    assert depths["bert.embeddings.LayerNorm.bias"] == 3
    assert len(depths) == len([*model.parameters()])


def test_each_layer_has_a_rate_below_that_of_the_one_above(model: PreTrainedModel) -> None:
    config = recipe(layer_decay=0.5)
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, recipe(layer_decay=0.5, warmup_fraction=0), 10)
    names = {id(p): name for name, p in model.named_parameters()}
    rate = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    depth = parameter_depths(model, config)
    assert {name: 0.01 * 0.5 ** depth[name] for name in rate} == pytest.approx(rate)
    assert schedule.get_last_lr()[0] == 0.01  # the head is in the first group, whose rate is logged
    decayed = {
        names[id(p)] for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]
    }
    assert decayed == {name for name, p in model.named_parameters() if p.ndim > 1}


def trained_depths(model: PreTrainedModel, step: int, **settings: object) -> set[int]:
    """Return the depths that keep their gradients at a step, with 10 steps per epoch."""
    config = recipe(**settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    GradualUnfreezing(model, config, 10).drop_frozen_gradients(step)
    depth = parameter_depths(model, config)
    return {depth[name] for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("step", "trained"),
    [(0, {0}), (9, {0}), (10, {0, 1}), (19, {0, 1}), (20, {0, 1, 2}), (30, {0, 1, 2, 3})],
)
def test_layers_join_from_the_top(model: PreTrainedModel, step: int, trained: set[int]) -> None:
    assert trained_depths(model, step, unfreeze_epochs=3) == trained
    assert trained_depths(model, step) == {0, 1, 2, 3}


def test_frozen_layers_are_not_moved_or_decayed(tiny: Path) -> None:
    model = new_classifier(Backbone("tiny", str(tiny)), seed=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = recipe(unfreeze_epochs=3)
    optimizer, unfreezing = build_optimizer(model, config), GradualUnfreezing(model, config, 10)
    for step in (9, 10):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        unfreezing.drop_frozen_gradients(step)
        optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    depth = parameter_depths(model, config)
    assert moved == {name for name in before if depth[name] <= 1}


class Flat(torch.nn.Module):
    """A model without numbered layers."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(2, 2)


@pytest.mark.parametrize("setting", ["layer_decay", "unfreeze_epochs"])
def test_model_without_layers_is_refused_only_for_layer_settings(setting: str) -> None:
    flat: Any = Flat()
    assert set(parameter_depths(flat, recipe()).values()) == {0}
    with pytest.raises(
        InputError, match=rf"train\.{setting}=0\.5: .*Flat's weights have no layer numbers"
    ):
        parameter_depths(flat, recipe(**{setting: 0.5}))


# --- schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "warmup", "expected"),
    [
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4, 0]),
        (4, 0.5, [1 / 3, 2 / 3, 1, 1 / 2, 0]),
        (5, 0.2, [1 / 2, 1, 3 / 4, 2 / 4, 1 / 4, 0]),
        (1, 0.0, [1, 0]),
        (1, 0.9, [1 / 2, 0]),  # so short that it only warms up
    ],
)
def test_learning_rate_rises_to_its_peak_and_falls_to_zero(
    total: int, warmup: float, expected: list[float]
) -> None:
    factors = [
        learning_rate_factor(step, total, round(total * warmup)) for step in range(total + 1)
    ]
    assert factors == pytest.approx(expected)
    assert rates(total, warmup_fraction=warmup) == pytest.approx([0.01 * f for f in expected])


@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("total", [3, 10, 137])
def test_every_step_has_a_rate_above_zero_and_at_most_the_peak(total: int, warmup: float) -> None:
    factors = [learning_rate_factor(step, total, round(total * warmup)) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert peak <= round(total * warmup)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert (
        learning_rate_factor(total, total, peak)
        == learning_rate_factor(total + 5, total, peak)
        == 0
    )


@pytest.mark.parametrize("done", [0, 1, 3, 6, 11])
def test_resumed_schedule_is_the_uninterrupted_one(done: int) -> None:
    uninterrupted = rates(12, warmup_fraction=0.3)
    assert rates(12, done, warmup_fraction=0.3) == uninterrupted[done:]


def test_longer_run_resumes_on_its_own_schedule() -> None:
    """The schedule starts from the peak, not from the last rate of the shorter run."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    optimizer.param_groups[0]["lr"] = 0.0  # as a finished run leaves it
    schedule = build_schedule(optimizer, recipe(warmup_fraction=0), 20, 10)
    assert schedule.get_last_lr() == pytest.approx([0.005])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


def test_shapes_of_the_schedule() -> None:
    assert rates(4, schedule="constant", warmup_fraction=0) == pytest.approx([0.01] * 5)
    half = 0.01 * (1 + 2**-0.5) / 2
    expected = [0.01, half, 0.005, 0.01 - half, 0]
    assert rates(4, schedule="cosine", warmup_fraction=0) == pytest.approx(expected)
    assert rates(4, schedule="constant", warmup_fraction=0.5)[:3] == pytest.approx(
        [0.01 / 3, 0.02 / 3, 0.01]
    )


def test_cosine_equals_transformers() -> None:
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    reference = get_cosine_schedule_with_warmup(optimizer, 0, 20).lr_lambdas[0]
    factors = [learning_rate_factor(step, 20, 0, "cosine") for step in range(21)]
    assert factors == pytest.approx([reference(step) for step in range(21)])


def test_warm_up_in_steps_overrides_the_fraction() -> None:
    step_rates = rates(10, warmup_steps=3, warmup_fraction=0.9, schedule="constant")
    assert step_rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates(10, warmup_steps=0, warmup_fraction=0.9)[0] == pytest.approx(0.01)
