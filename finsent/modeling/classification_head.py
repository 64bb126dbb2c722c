"""Find, reorder and reinitialize the output layer of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from finsent.labels import ID2LABEL, LABEL2ID, LABELS
from finsent.modeling.label_map import ABSENT_LOGIT


def output_layer(model: PreTrainedModel) -> nn.Linear | None:
    """Return the layer whose outputs are the logits; None where the model has no such layer.

    The layer is outside the encoder and has one output per label.
    """
    layers = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not name.startswith(f"{model.base_model_prefix}.")
        and module.out_features == model.config.num_labels
    ]
    # A hidden layer of the head may have as many outputs as there are labels. Logits come last.
    return layers[-1] if layers else None


def reorder_labels(model: PreTrainedModel, columns: Sequence[int | None]) -> bool:
    """Make a classifier answer `LABELS`, by reordering the rows of its output layer.

    Args:
        columns: column of the model's logits by label of `LABELS`; None: the model lacks the label,
            whose logit becomes `ABSENT_LOGIT`.

    Returns:
        False where the model has no output layer that can be reordered; the model is unchanged.
    """
    layer = output_layer(model)
    if layer is None or (layer.bias is None and None in columns):
        return False
    with torch.no_grad():
        layer.weight = nn.Parameter(_rows(layer.weight, columns, 0.0))
        if layer.bias is not None:
            layer.bias = nn.Parameter(_rows(layer.bias, columns, ABSENT_LOGIT))
    layer.out_features = len(LABELS)
    untyped: Any = model  # torch types all attributes of a module as tensors
    config = untyped.config
    config.id2label, config.label2id = dict(ID2LABEL), dict(LABEL2ID)
    config.problem_type = "single_label_classification"
    untyped.num_labels = len(LABELS)
    return True


def reinitialize(layer: nn.Linear, std: float) -> None:
    """Initialize an output layer by torch's random numbers, as transformers initializes heads."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _rows(old: torch.Tensor, columns: Sequence[int | None], absent: float) -> torch.Tensor:
    """Return the rows of a weight or bias in another order, with a constant for absent labels."""
    new = old.new_full((len(columns), *old.shape[1:]), absent)
    for i, column in enumerate(columns):
        if column is not None:
            new[i] = old[column]
    return new
