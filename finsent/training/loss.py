"""The loss of rows, the weight of each row's loss, and the number format of the forward pass."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from finsent.labels import LABELS
from finsent.training.config import TrainConfig
from finsent.training.tokens import Batch, TokenizedRows

Weights = npt.NDArray[np.float64]


def class_weights(labels: npt.NDArray[np.int64], config: TrainConfig) -> Weights:
    """Return the weight of each label, in the order of `LABELS`.

    `balanced` is rows / (labels * rows of the label), as in scikit-learn's `class_weight`; a label
    without rows does not count.
    """
    setting = config.class_weights
    if setting == "none":
        return np.ones(len(LABELS))
    if setting == "balanced":
        counts = np.bincount(labels, minlength=len(LABELS))
        balanced: Weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1.0))
        return balanced
    return np.array([getattr(setting, label) for label in LABELS], np.float64)


def row_weights(rows: TokenizedRows, config: TrainConfig) -> Weights:
    """Return the weight of each row: the product of column, label and agreement weight."""
    weights = rows.weight * class_weights(rows.labels, config)[rows.labels]
    if config.agreement_weight == "linear":
        weights = weights * np.where(np.isnan(rows.agreement), 1.0, rows.agreement)
    return weights


def forward(model: torch.nn.Module, batch: Batch, device: torch.device) -> torch.Tensor:
    """Return the logits in fp32, shape (rows, labels)."""
    output = model(
        input_ids=batch.input_ids.to(device, non_blocking=True),
        attention_mask=batch.attention_mask.to(device, non_blocking=True),
    )
    logits: torch.Tensor = output.logits.float()
    return logits


def loss_sum(
    logits: torch.Tensor, targets: torch.Tensor, weights: Weights, smoothing: float
) -> torch.Tensor:
    """Return the sum of weight times cross-entropy over rows.

    Args:
        targets: label ids, shape (rows,), or probabilities, shape (rows, labels).
        smoothing: as in Szegedy et al. (arXiv:1512.00567). A row's weight also applies to the
            smoothed part of its loss.
    """
    losses = functional.cross_entropy(
        logits, targets.to(logits.device), reduction="none", label_smoothing=smoothing
    )
    return (losses * torch.from_numpy(weights).to(losses)).sum()


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit format of autocast; None: fp32 only."""
    if config.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]


def autocast(config: TrainConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Compute matrix products in the format of `train.precision` inside the block."""
    dtype = autocast_dtype(config, device)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
