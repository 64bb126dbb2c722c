"""AdamW and its learning-rate schedule."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from finsent.training.config import TrainConfig


def peak_rate(config: TrainConfig) -> float:
    """The configured peak rate; `finsent.training.task.make_task` has put in a number for null."""
    assert config.learning_rate is not None, "make_task resolves it"
    return config.learning_rate


def build_optimizer(model: PreTrainedModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv:1711.05101) without decay on biases and LayerNorm."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for _, p in trained if p.ndim < 2]  # biases and LayerNorm weights are vectors
    decayed = [p for _, p in trained if p.ndim >= 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=peak_rate(config), fused=True)


def rate_factor(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Share of the peak rate at a step: linear climb, then linear fall to 0 after the last step."""
    warmup = round(total_steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup))


def build_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int, done_steps: int = 0
) -> LambdaLR:
    """The schedule, continued after `done_steps` when a run resumes."""
    for group in optimizer.param_groups:
        group["initial_lr"] = peak_rate(config)
    return LambdaLR(
        optimizer,
        lambda step: rate_factor(step, total_steps, config.warmup_fraction),
        last_epoch=done_steps - 1,
    )
