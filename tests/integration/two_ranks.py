"""What two ranks agree on about memory and bad numbers, for `tests.integration.ranks`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from finsent.errors import InputError
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import new_classifier
from finsent.training.accumulation import GradientAccumulator
from finsent.training.config import TrainConfig
from finsent.training.distributed import DistributedContext
from finsent.training.epoch_meter import EpochMeter
from finsent.training.loss import Weights, forward, loss_sum
from finsent.training.tokens import Batch, TokenizedRows
from tests.unit.loop_bench import rows_of

ROWS = 23
CPU = torch.device("cpu")


def distance(model: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    found = [
        (a.grad - b.grad).abs().max() for a, b in pairs if a.grad is not None and b.grad is not None
    ]
    return float(max(found))


def memory(backbone: Backbone, rows: TokenizedRows, fits: int) -> dict[str, Any]:
    """Rank 1 can hold `fits` rows at a time, rank 0 all."""
    context = DistributedContext.current(CPU)
    weights = np.linspace(0.5, 2.0, ROWS)
    alone, model = new_classifier(backbone, 7), new_classifier(backbone, 7)
    config = TrainConfig(learning_rate=0.01)
    own_context = DistributedContext()
    meter = EpochMeter(own_context)
    GradientAccumulator(alone, config, own_context, print).compute(
        rows, weights, np.arange(ROWS), meter
    )
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    notes: list[str] = []
    tried: list[int] = []

    def batch_loss(batch: Batch, given: Weights) -> torch.Tensor:
        tried.append(len(batch.labels))
        if context.rank == 1 and len(batch.labels) > fits:
            raise torch.OutOfMemoryError("out of memory")
        return loss_sum(forward(wrapped, batch, CPU), batch.labels, given, 0.0)

    gradients = GradientAccumulator(
        wrapped, config, context, notes.append, batch_loss=batch_loss, checks_memory=True
    )
    found: dict[str, Any] = {}
    try:
        # Two times the same: first without DDP's exchange, then with it.
        for turn in ("careful", "overlapped"):
            meter = EpochMeter(context)
            gradients.compute(rows, weights, np.arange(ROWS), meter)
            found[turn] = distance(alone, model)
            found[f"{turn}_rows"] = meter.total(0.0).rows
            found[f"{turn}_tried"] = tried.copy()
            tried.clear()
            wrapped.zero_grad(set_to_none=True)
    except InputError as error:
        found["error"] = str(error)
    return {**found, "parts": gradients.micro_batches, "notes": len(notes)}


def agreed(backbone_dir: Path) -> dict[str, Any]:
    """What this rank found."""
    dist.init_process_group("gloo")
    context = DistributedContext.current(CPU)
    backbone, rows = Backbone("still", str(backbone_dir)), rows_of(backbone_dir, ROWS, 0)
    meter = EpochMeter(context)
    for step in range(4):
        meter.begin_step(step)
        meter.check_finite(torch.tensor(float("nan") if (context.rank, step) == (1, 2) else 1.0))
    found = {
        "small": memory(backbone, rows, fits=3),
        "none": memory(backbone, rows, fits=0),
        "bad_step": meter.bad_step(),
    }
    dist.destroy_process_group()
    return found
