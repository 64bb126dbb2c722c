"""Names that the package `peft` gives to weights inside a model, which its docs leave open.

The package is the extra `lora`, so this module is imported only where adapters are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

_ADAPTER = "default"
# peft stores the original weights of a layer, and its adapters, under these parts of a name.
BASE_LAYER, ADAPTER_WEIGHTS = ".base_layer.", ".lora_"


def inject_adapters(
    model: torch.nn.Module, targets: Sequence[str], rank: int, alpha: float, dropout: float
) -> None:
    """Add adapters to the linear layers of the given names in place; freeze all other weights."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type] # accepts any number
        lora_dropout=dropout,
        target_modules=[*targets],
    )
    inject_adapter_in_model(config, model, adapter_name=_ADAPTER)


@torch.no_grad()
def merged_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights with the adapters merged, by the names of a model without adapters."""
    # `get_delta_weight` is a method of each subclass, and not of `LoraLayer`.
    adapters: dict[str, Any] = {
        name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)
    }
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ADAPTER_WEIGHTS in name:
            continue
        layer, base, leaf = name.rpartition(BASE_LAYER)
        if base and leaf == "weight":
            tensor = tensor + adapters[layer].get_delta_weight(_ADAPTER)
        weights[f"{layer}.{leaf}" if base else name] = tensor
    return weights
