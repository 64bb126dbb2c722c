"""The classifier with which a training starts."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.modeling.classifier import new_classifier
from finsent.modeling.compatibility import check_length
from finsent.training.lora import add_adapters
from finsent.training.task import Task


def build_model(task: Task, device: torch.device) -> PreTrainedModel:
    """Build the classifier of a task on a device.

    Raises:
        InputError: the backbone does not suit the recipe.
    """
    config = task.config
    model = new_classifier(task.backbone, config.seed, config.dropout)
    if config.lora_rank is not None:
        add_adapters(model, config)
    torch.nn.Module.to(model, device)  # `PreTrainedModel.to` has no types
    check_length(model.config, task.max_length, task.backbone.name, "model.max_length")
    if config.batch_tokens is not None and config.batch_tokens < task.max_length:
        raise InputError(
            f"train.batch_tokens={config.batch_tokens}: a row may have model.max_length="
            f"{task.max_length} tokens. Raise train.batch_tokens or lower model.max_length."
        )
    if config.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise InputError(
                f"train.gradient_checkpointing=true: {type(model).__name__} does not support it. "
                "Set train.gradient_checkpointing=false."
            )
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model
