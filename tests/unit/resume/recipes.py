"""The recipe of trainings that are killed."""

from __future__ import annotations

from typing import Any

# A recipe with all that a checkpoint stores next to the weights.
RECIPE: dict[str, Any] = {
    "epochs": 3,
    "checkpoint_every_steps": 5,
    "log_every_steps": 3,
    "ema_decay": 0.9,
    "precision": "fp16",
    "schedule": "cosine",
    "layer_decay": 0.8,
    "unfreeze_epochs": 1.5,
    "accumulation_steps": 2,
    "label_smoothing": 0.1,
}
