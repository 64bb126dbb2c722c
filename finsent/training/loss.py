"""What a row's loss counts, and the loss of some rows."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from finsent.labels import LABELS
from finsent.training.config import TrainConfig
from finsent.training.tokens import Batch, TokenRows

Weights = npt.NDArray[np.float64]


def class_weights(labels: npt.NDArray[np.int64], config: TrainConfig) -> Weights:
    """The weight of each label, in the order of `LABELS`.

    `balanced` is rows / (labels * rows of the label), as in scikit-learn's `class_weight`; a label
    without rows is left out of the count of labels.
    """
    given = config.class_weights
    if given == "none":
        return np.ones(len(LABELS))
    if given == "balanced":
        counts = np.bincount(labels, minlength=len(LABELS))
        balanced: Weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1.0))
        return balanced
    return np.array([getattr(given, label) for label in LABELS], np.float64)


def row_weights(rows: TokenRows, config: TrainConfig) -> Weights:
    """The weight of each row: its column `weight`, its label's, and its agreement's together."""
    found = rows.weight * class_weights(rows.labels, config)[rows.labels]
    if config.agreement_weight == "linear":
        found = found * np.where(np.isnan(rows.agreement), 1.0, rows.agreement)
    return found


def forward(model: torch.nn.Module, batch: Batch, device: torch.device) -> torch.Tensor:
    """Logits in fp32, shape (rows, labels)."""
    output = model(
        input_ids=batch.input_ids.to(device, non_blocking=True),
        attention_mask=batch.attention_mask.to(device, non_blocking=True),
    )
    logits: torch.Tensor = output.logits.float()
    return logits


def loss_sum(
    logits: torch.Tensor, targets: torch.Tensor, weights: Weights, smoothing: float
) -> torch.Tensor:
    """The sum of weight times cross-entropy over rows.

    Args:
        targets: label ids, shape (rows,), or probabilities, shape (rows, labels).
        smoothing: as in Szegedy et al. (arXiv:1512.00567); a row's weight counts for the whole of
            its loss, the smoothed part included.
    """
    losses = functional.cross_entropy(
        logits, targets.to(logits.device), reduction="none", label_smoothing=smoothing
    )
    return (losses * torch.from_numpy(weights).to(losses)).sum()


def half_type(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The 16-bit format of autocast; None: fp32 throughout."""
    if config.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]


def autocast(config: TrainConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Matrix products in the format of `train.precision`."""
    half = half_type(config, device)
    return contextlib.nullcontext() if half is None else torch.autocast(device.type, half)
