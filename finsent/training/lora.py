"""Low-rank adapters (Hu et al., arXiv:2106.09685) by the package `peft`: few weights to train.

The encoder's layers get adapters; head and pooler are trained without. The model that is evaluated
and published has the adapters merged into plain weights, which load without `peft`.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.extras import require
from finsent.training.config import TrainConfig
from finsent.training.optim import layer_index


def add_adapters(model: PreTrainedModel, config: TrainConfig) -> None:
    """Add adapters to the encoder's layers in place; freeze all other weights but the head's.

    Raises:
        InputError: `peft` is not installed, the model's names show no layers, or the recipe has a
            setting that adapters do not support.
    """
    require("peft", f"train.lora_rank={config.lora_rank}")
    if config.ema_decay is not None:
        raise InputError(
            f"train.ema_decay={config.ema_decay}: not supported with train.lora_rank. Set "
            "one of them to null."
        )
    layer_weights = {name for name, _ in model.named_parameters() if layer_index(name) is not None}
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and f"{name}.weight" in layer_weights
    ]
    if not targets:
        raise InputError(
            f"train.lora_rank={config.lora_rank}: the names of {type(model).__name__}'s weights "
            "have no layer numbers. Set train.lora_rank=null."
        )
    head = [parameter for name, parameter in model.named_parameters() if _in_head(name)]
    rank = config.lora_rank
    assert rank is not None, "the caller checks"
    from finsent.adapters.peft import inject_adapters  # the package is optional

    inject_adapters(model, targets, rank, config.lora_alpha, config.lora_dropout)
    for parameter in head:
        parameter.requires_grad_(True)


def _in_head(name: str) -> bool:
    return layer_index(name) is None and "embed" not in name


def trainable_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights that are trained, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def merged_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights with the adapters merged, by the names of a model without adapters."""
    from finsent.adapters import peft  # the package is optional

    return peft.merged_weights(model)
