"""Low-rank adapters (Hu et al., arXiv:2106.09685) by the package `peft`: few weights to train.

The adapters live in the encoder's layers; head and pooler are trained whole. What is evaluated,
saved and published has them merged into plain weights, which load without `peft`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.extras import require
from finsent.training.config import TrainConfig
from finsent.training.optim import layer_of

_NAME = "default"
_BASE = ".base_layer."


def add_adapters(model: PreTrainedModel, config: TrainConfig) -> None:
    """Put adapters into the encoder's layers, in place, and freeze the rest but for the head.

    Raises:
        InputError: `peft` is not installed, the model's layers cannot be told apart, or the recipe
            has a setting that does not go with adapters.
    """
    require("peft", f"train.lora_rank={config.lora_rank}")
    if config.ema_decay is not None:
        raise InputError(
            f"train.ema_decay={config.ema_decay}: does not go with train.lora_rank; set one of "
            "them to null"
        )
    from peft import LoraConfig, inject_adapter_in_model

    inside = {name for name, _ in model.named_parameters() if layer_of(name) is not None}
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and f"{name}.weight" in inside
    ]
    if not targets:
        raise InputError(
            f"train.lora_rank={config.lora_rank}: {type(model).__name__} has no layers that can be "
            "told apart; set train.lora_rank=null"
        )
    head = [parameter for name, parameter in model.named_parameters() if _in_head(name)]
    rank = config.lora_rank
    assert rank is not None, "asked for by the caller"
    inject_adapter_in_model(
        LoraConfig(
            r=rank,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type] # takes any number
            lora_dropout=config.lora_dropout,
            target_modules=targets,
        ),
        model,
        adapter_name=_NAME,
    )
    for parameter in head:
        parameter.requires_grad_(True)


def _in_head(name: str) -> bool:
    return layer_of(name) is None and "embed" not in name


def trained(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights that are trained, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def merged(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The model's weights with its adapters in them, by the names of a model without any."""
    from peft.tuners.lora import LoraLayer

    adapters: dict[str, Any] = {
        name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)
    }
    found = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        owner, base, leaf = name.rpartition(_BASE)
        if base and leaf == "weight":
            tensor = tensor + adapters[owner].get_delta_weight(_NAME)
        found[f"{owner}.{leaf}" if base else name] = tensor
    return found
