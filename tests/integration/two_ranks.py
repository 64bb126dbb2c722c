"""Decisions on memory and bad numbers that two ranks share, for `tests.integration.ranks`."""

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
    differences = [
        (a.grad - b.grad).abs().max() for a, b in pairs if a.grad is not None and b.grad is not None
    ]
    return float(max(differences))


def memory(backbone: Backbone, rows: TokenizedRows, max_rows: int) -> dict[str, Any]:
    """Compute a step twice. Rank 1 has memory for `max_rows` rows, rank 0 for all."""
    context = DistributedContext.current(CPU)
    weights = np.linspace(0.5, 2.0, ROWS)
    reference, model = new_classifier(backbone, 7), new_classifier(backbone, 7)
    config = TrainConfig(learning_rate=0.01)
    own_context = DistributedContext()
    meter = EpochMeter(own_context)
    GradientAccumulator(reference, config, own_context, print).compute(
        rows, weights, np.arange(ROWS), meter
    )
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    notes: list[str] = []
    tried: list[int] = []

    def batch_loss(batch: Batch, given: Weights) -> torch.Tensor:
        tried.append(len(batch.labels))
        if context.rank == 1 and len(batch.labels) > max_rows:
            raise torch.OutOfMemoryError("out of memory")
        return loss_sum(forward(wrapped, batch, CPU), batch.labels, given, 0.0)

    accumulator = GradientAccumulator(
        wrapped, config, context, notes.append, batch_loss=batch_loss, checks_memory=True
    )
    outcome: dict[str, Any] = {}
    try:
        # The first step is without DDP's exchange, the second with it.
        for turn in ("careful", "overlapped"):
            meter = EpochMeter(context)
            accumulator.compute(rows, weights, np.arange(ROWS), meter)
            outcome[turn] = distance(reference, model)
            outcome[f"{turn}_rows"] = meter.total(0.0).rows
            outcome[f"{turn}_tried"] = tried.copy()
            tried.clear()
            wrapped.zero_grad(set_to_none=True)
    except InputError as error:
        outcome["error"] = str(error)
    return {**outcome, "parts": accumulator.micro_batches, "notes": len(notes)}


def shared_decisions(backbone_dir: Path) -> dict[str, Any]:
    """Return this rank's decisions."""
    dist.init_process_group("gloo")
    context = DistributedContext.current(CPU)
    backbone, rows = Backbone("still", str(backbone_dir)), rows_of(backbone_dir, ROWS, 0)
    meter = EpochMeter(context)
    for step in range(4):
        meter.begin_step(step)
        meter.check_finite(torch.tensor(float("nan") if (context.rank, step) == (1, 2) else 1.0))
    decisions = {
        "small": memory(backbone, rows, max_rows=3),
        "none": memory(backbone, rows, max_rows=0),
        "bad_step": meter.bad_step(),
    }
    dist.destroy_process_group()
    return decisions
