"""This project's loop computes the steps: plain PyTorch DDP, under Ray, torchrun, or alone."""

from __future__ import annotations

from typing import cast

import torch
from torch.nn.parallel import DistributedDataParallel

from finsent.training.accumulation import GradientAccumulator
from finsent.training.step import OptimizerStep
from finsent.training.training_run import TrainingRun
from finsent.training.unfreezing import GradualUnfreezing


def compute_steps(run: TrainingRun) -> None:
    """Compute all steps of a run whose epoch has started."""
    wrapped = _wrap(run)
    step = OptimizerStep(
        run.model.parameters(),
        GradientAccumulator(wrapped, run.config, run.context, run.callbacks.on_note, run.scaler),
        run.optimizer,
        run.schedule,
        GradualUnfreezing(run.model, run.config, run.total_steps / run.config.epochs),
        run.scaler,
        run.config.max_grad_norm,
    )
    has_ended = False
    while not has_ended:
        run.before_step()
        step.make(run.rows, run.row_weights, run.batch, run.meter, run.step)
        has_ended = run.after_step()


def _wrap(run: TrainingRun) -> torch.nn.Module:
    """Return the model inside DDP and `torch.compile`, where the run needs them."""
    wrapped: torch.nn.Module = run.model
    device = run.context.device
    if run.context.world_size > 1:
        wrapped = DistributedDataParallel(
            run.model,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,  # an encoder's buffers are constants
        )
    if run.config.compile:
        wrapped = cast(torch.nn.Module, torch.compile(wrapped, dynamic=True))
    return wrapped.train()
