"""Metrics on the validation split, exact over all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from finsent.evaluation.metrics import confusion, scores
from finsent.labels import LABELS
from finsent.training.batches import sorted_batches
from finsent.training.config import TrainConfig
from finsent.training.distributed import DistributedContext
from finsent.training.loss import autocast, forward
from finsent.training.metrics import EpochMetrics
from finsent.training.tokens import TokenizedRows

_BATCH_ROWS = 64


@dataclass(frozen=True)
class Validation:
    """Metrics on the validation split."""

    macro_f1: float
    accuracy: float
    loss: float  # mean over rows, without weights
    rows: int
    confusion: list[list[int]]  # counts by true and predicted label id


@torch.no_grad()
def validate(
    model: PreTrainedModel, rows: TokenizedRows, config: TrainConfig, context: DistributedContext
) -> Validation:
    """Measure a model. Each row counts once, whatever its weight and the number of ranks."""
    model.eval()
    matrix, loss = np.zeros((len(LABELS), len(LABELS)), np.int64), 0.0
    for indices in sorted_batches(rows.lengths, context.rank, context.world_size, _BATCH_ROWS):
        batch = rows.batch(indices)
        with autocast(config, context.device):
            logits = forward(model, batch, context.device)
        labels = batch.labels.to(context.device)
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        matrix += confusion(batch.labels.numpy(), logits.argmax(-1).cpu().numpy())
    counts = context.sum(matrix).numpy().astype(np.int64)
    figures = scores(counts)
    return Validation(
        macro_f1=figures.macro_f1,
        accuracy=figures.accuracy,
        loss=float(context.sum(loss)) / max(len(rows), 1),
        rows=figures.rows,
        confusion=[[*row] for row in figures.confusion],
    )


def has_stalled(history: Sequence[EpochMetrics], patience: int | None) -> bool:
    """Return whether macro-F1 has not risen for `patience` epochs."""
    if patience is None or not history:
        return False
    values = [metrics.macro_f1 for metrics in history]
    return len(values) - 1 - values.index(max(values)) >= patience
