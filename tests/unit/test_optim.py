"""AdamW's two groups, and a rate that climbs, falls, and goes on after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import Embedding, LayerNorm, Linear
from transformers import PreTrainedModel

from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import new_classifier
from finsent.training.config import TrainConfig
from finsent.training.optim import build_optimizer, build_schedule, rate_factor


@pytest.fixture(scope="module")
def model(tiny: Path) -> PreTrainedModel:
    return new_classifier(Backbone("tiny", str(tiny)), seed=1)


def recipe(**settings: object) -> TrainConfig:
    values: dict[str, object] = {"learning_rate": 0.01, "weight_decay": 0.2, **settings}
    return TrainConfig.model_validate(values)


def rates(total: int, done: int = 0, **settings: object) -> list[float]:
    """The rate of each step from `done` on, from a real optimiser that really steps."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    schedule = build_schedule(optimizer, recipe(**settings), total, done)
    found = []
    for _ in range(done, total):
        found.append(float(optimizer.param_groups[0]["lr"]))
        weight.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
    found.append(float(optimizer.param_groups[0]["lr"]))
    return found


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
    assert not decay  # every parameter was looked at, and stands in one group


def test_frozen_parameters_are_left_out(tiny: Path) -> None:
    model = new_classifier(Backbone("tiny", str(tiny)), seed=1)
    frozen = model.get_input_embeddings().weight
    frozen.requires_grad = False
    groups = build_optimizer(model, recipe()).param_groups
    held = {id(p) for group in groups for p in group["params"]}
    assert id(frozen) not in held
    assert len(held) == len([*model.parameters()]) - 1


def test_every_group_starts_at_the_configured_rate(model: PreTrainedModel) -> None:
    groups = build_optimizer(model, recipe(learning_rate=0.003)).param_groups
    assert [group["lr"] for group in groups] == [0.003, 0.003]


# --- schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "warmup", "expected"),
    [
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4, 0]),
        (4, 0.5, [1 / 3, 2 / 3, 1, 1 / 2, 0]),
        (5, 0.2, [1 / 2, 1, 3 / 4, 2 / 4, 1 / 4, 0]),
        (1, 0.0, [1, 0]),
        (1, 0.9, [1 / 2, 0]),  # so short that there is nothing but the climb
    ],
)
def test_rate_climbs_to_its_peak_and_falls_to_zero(
    total: int, warmup: float, expected: list[float]
) -> None:
    found = [rate_factor(step, total, round(total * warmup)) for step in range(total + 1)]
    assert found == pytest.approx(expected)
    assert rates(total, warmup_fraction=warmup) == pytest.approx([0.01 * f for f in expected])


@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("total", [3, 10, 137])
def test_no_step_is_wasted_or_beyond_the_peak(total: int, warmup: float) -> None:
    found = [rate_factor(step, total, round(total * warmup)) for step in range(total)]
    assert all(0 < factor <= 1 for factor in found)
    climb = found.index(max(found))
    assert climb <= round(total * warmup)
    assert found[: climb + 1] == sorted(found[: climb + 1])
    assert found[climb:] == sorted(found[climb:], reverse=True)
    assert rate_factor(total, total, climb) == rate_factor(total + 5, total, climb) == 0


@pytest.mark.parametrize("done", [0, 1, 3, 6, 11])
def test_resumed_schedule_is_the_undisturbed_one(done: int) -> None:
    undisturbed = rates(12, warmup_fraction=0.3)
    assert rates(12, done, warmup_fraction=0.3) == undisturbed[done:]


def test_longer_run_resumes_on_its_own_schedule() -> None:
    """The peak counts, not the rate at which the shorter run had stopped."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    optimizer.param_groups[0]["lr"] = 0.0  # as a finished run leaves it
    schedule = build_schedule(optimizer, recipe(warmup_fraction=0), 20, 10)
    assert schedule.get_last_lr() == pytest.approx([0.005])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
