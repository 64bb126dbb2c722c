"""AdamW, its learning-rate schedule, and the depth of each layer."""

from __future__ import annotations

import math
import re

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.training.config import TrainConfig

_LAYER = re.compile(r"(?:^|\.)(?:layer|layers|h)\.(\d+)\.")


def peak_learning_rate(config: TrainConfig) -> float:
    """Return the peak learning rate; `finsent.training.task.make_task` has replaced null."""
    assert config.learning_rate is not None, "make_task sets the backbone's rate"
    return config.learning_rate


def layer_index(name: str) -> int | None:
    """Return the encoder layer of a parameter, counted from 0; None: in no layer."""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def parameter_depths(model: PreTrainedModel, config: TrainConfig) -> dict[str, int]:
    """Return how far below the head each parameter is: head and pooler 0, top layer 1.

    Embeddings are the deepest.

    Raises:
        InputError: the recipe treats layers differently, and the model's names show no layers.
    """
    names = [name for name, _ in model.named_parameters()]
    layers = {name: index for name in names if (index := layer_index(name)) is not None}
    if not layers:
        for field, neutral in (("layer_decay", 1.0), ("unfreeze_epochs", 0.0)):
            if (value := getattr(config, field)) != neutral:
                raise InputError(
                    f"train.{field}={value}: the names of {type(model).__name__}'s weights have no "
                    f"layer numbers. Set train.{field}={neutral:g}."
                )
    count = max(layers.values(), default=-1) + 1
    return {
        name: count - layers[name] if name in layers else (count + 1) * ("embed" in name)
        for name in names
    }


def build_optimizer(model: PreTrainedModel, config: TrainConfig) -> torch.optim.AdamW:
    """Build AdamW (Loshchilov & Hutter, arXiv:1711.05101) without decay on biases and LayerNorm.

    With `layer_decay` below 1 each layer has its own rate (discriminative fine-tuning, Howard &
    Ruder, arXiv:1801.06146; FinBERT, Araci, arXiv:1908.10063). The first group is the head's.
    """
    depths = parameter_depths(model, config)
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    shares = {name: config.layer_decay ** depths[name] for name, _ in trainable}
    for name, parameter in sorted(trainable, key=lambda item: -shares[item[0]]):
        # Biases and LayerNorm weights are vectors.
        groups.setdefault((shares[name], parameter.ndim >= 2), []).append(parameter)
    rate = peak_learning_rate(config)
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


def learning_rate_factor(
    step: int, total_steps: int, warmup_steps: int, schedule: str = "linear"
) -> float:
    """Return the share of the peak rate at a step: a linear warm-up, then `train.schedule`.

    Args:
        step: counted from 0.
        schedule: `linear` and `cosine` (Loshchilov & Hutter, arXiv:1608.03983, without restarts)
            reach 0 after the last step; `constant` stays at 1.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    remaining_share = max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))
    if schedule == "linear":
        return remaining_share
    return (1 - math.cos(math.pi * remaining_share)) / 2


def build_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int, done_steps: int = 0
) -> LambdaLR:
    """Build the learning-rate schedule.

    Args:
        done_steps: steps before the checkpoint from which the run resumes.
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = peak_learning_rate(config) * group.get("share", 1.0)
    warmup_steps = config.warmup_steps
    if warmup_steps is None:
        warmup_steps = round(total_steps * config.warmup_fraction)
    return LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(step, total_steps, warmup_steps, config.schedule),
        last_epoch=done_steps - 1,
    )
