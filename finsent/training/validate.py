"""Metrics on the validation split, exact over all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from finsent.evaluation.metrics import confusion, scores
from finsent.labels import LABELS
from finsent.training.batches import sorted_batches
from finsent.training.config import TrainConfig
from finsent.training.loss import autocast, forward
from finsent.training.tokens import TokenRows
from finsent.training.world import World

_ROWS = 64


@torch.no_grad()
def validate(
    model: PreTrainedModel, rows: TokenRows, config: TrainConfig, world: World
) -> dict[str, Any]:
    """Each row counts once and the same, however the rows divide and whatever their weights."""
    model.eval()
    matrix, loss = np.zeros((len(LABELS), len(LABELS)), np.int64), 0.0
    for indices in sorted_batches(rows.lengths, world.rank, world.size, _ROWS):
        batch = rows.batch(indices)
        with autocast(config, world.device):
            logits = forward(model, batch, world.device)
        labels = batch.labels.to(world.device)
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        matrix += confusion(batch.labels.numpy(), logits.argmax(-1).cpu().numpy())
    counts = world.total(matrix).numpy().astype(np.int64)
    found = scores(counts)
    return {
        "macro_f1": found["macro_f1"],
        "accuracy": found["accuracy"],
        "validation_loss": float(world.total(loss)) / max(len(rows), 1),
        "validation_rows": found["rows"],
        "validation_confusion": found["confusion"],
    }


def stalled(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Whether macro-F1 has not risen for `patience` epochs."""
    if patience is None or not history:
        return False
    found = [float(metrics["macro_f1"]) for metrics in history]
    return len(found) - 1 - found.index(max(found)) >= patience
