"""AdamW, its learning-rate schedule, and which layers train when."""

from __future__ import annotations

import math
import re

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.training.config import TrainConfig

_LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h)\.(\d+)\.")


def peak_rate(config: TrainConfig) -> float:
    """The configured peak rate; `finsent.training.task.make_task` has put in a number for null."""
    assert config.learning_rate is not None, "make_task resolves it"
    return config.learning_rate


def layer_of(name: str) -> int | None:
    """The encoder layer of a parameter, counted from 0, or None: it belongs to none."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def depths(model: PreTrainedModel, config: TrainConfig) -> dict[str, int]:
    """How far below the head each parameter lies: head and pooler 0, top layer 1, embeddings last.

    Raises:
        InputError: the recipe treats layers differently, and the model's cannot be told apart.
    """
    names = [name for name, _ in model.named_parameters()]
    layer = {name: found for name in names if (found := layer_of(name)) is not None}
    if not layer:
        for field, off in (("layer_decay", 1.0), ("unfreeze_epochs", 0.0)):
            if (value := getattr(config, field)) != off:
                raise InputError(
                    f"train.{field}={value}: {type(model).__name__} has no layers that can be "
                    f"told apart; set train.{field}={off:g}"
                )
    count = max(layer.values(), default=-1) + 1
    return {
        name: count - layer[name] if name in layer else (count + 1) * ("embed" in name)
        for name in names
    }


def build_optimizer(model: PreTrainedModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) without decay on biases and LayerNorm.

    With `layer_decay` below 1 each layer has a rate of its own (discriminative fine-tuning, Howard
    & Ruder, arXiv:1801.06146; FinBERT, Araci, arXiv:1908.10063). The first group is the head's.
    """
    depth = depths(model, config)
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    shares = {name: config.layer_decay ** depth[name] for name, _ in trained}
    for name, parameter in sorted(trained, key=lambda item: -shares[item[0]]):
        # Biases and LayerNorm weights are vectors.
        groups.setdefault((shares[name], parameter.ndim >= 2), []).append(parameter)
    rate = peak_rate(config)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": config.weight_decay if decayed else 0.0,
                "lr": rate * share,
                "share": share,
            }
            for (share, decayed), parameters in groups.items()
        ],
        lr=rate,
        fused=True,
    )


def rate_factor(step: int, total_steps: int, warmup: int, shape: str = "linear") -> float:
    """Share of the peak rate at a step: a linear climb, then as `train.schedule` says.

    Args:
        step: counted from 0.
        warmup: steps of the climb.
        shape: `linear` and `cosine` (Loshchilov & Hutter, arXiv:1608.03983, without restarts) are 0
            after the last step.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if shape == "constant":
        return 1.0
    left = max(0.0, (total_steps - step) / max(1, total_steps - warmup))
    return left if shape == "linear" else (1 - math.cos(math.pi * left)) / 2


def build_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int, done_steps: int = 0
) -> LambdaLR:
    """The schedule, continued after `done_steps` when a run resumes."""
    for group in optimizer.param_groups:
        group["initial_lr"] = peak_rate(config) * group.get("share", 1.0)
    warmup = config.warmup_steps
    if warmup is None:
        warmup = round(total_steps * config.warmup_fraction)
    return LambdaLR(
        optimizer,
        lambda step: rate_factor(step, total_steps, warmup, config.schedule),
        last_epoch=done_steps - 1,
    )


class Thaw:
    """Gradual unfreezing (Howard & Ruder, arXiv:1801.06146): layers join from the top.

    The gradients of layers that have not joined are dropped before the optimizer sees them, so they
    have neither moments nor decay. They are computed nevertheless: DDP wants the same ones in every
    step.
    """

    def __init__(self, model: PreTrainedModel, config: TrainConfig, epoch_steps: float) -> None:
        depth = depths(model, config)
        deepest = max(depth.values(), default=0)
        self._period = config.unfreeze_epochs * epoch_steps / max(1, deepest)
        self._frozen = [
            (depth[name] * self._period, parameter) for name, parameter in model.named_parameters()
        ]

    def drop(self, step: int) -> None:
        """Drop the gradients of what is still frozen at a step, counted from 0 over the run."""
        if self._period:
            for opens, parameter in self._frozen:
                if step < opens:
                    parameter.grad = None
