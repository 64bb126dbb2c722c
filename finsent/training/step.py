"""One optimizer step: gradients, clipping, optimizer, schedule."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from finsent.training.accumulation import GradientAccumulator
from finsent.training.batches import Indices
from finsent.training.config import TrainConfig
from finsent.training.epoch_meter import EpochMeter
from finsent.training.loss import Weights, autocast_dtype
from finsent.training.tokens import TokenizedRows
from finsent.training.unfreezing import GradualUnfreezing


class OptimizerStep:
    """Makes the steps of a run without waiting for the device."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        accumulator: GradientAccumulator,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        unfreezing: GradualUnfreezing,
        scaler: torch.amp.GradScaler | None,
        max_grad_norm: float,
    ) -> None:
        self._parameters = [*parameters]
        self._accumulator, self._optimizer, self._schedule = accumulator, optimizer, schedule
        self._unfreezing, self._scaler = unfreezing, scaler
        self._max_grad_norm = max_grad_norm

    def make(
        self,
        rows: TokenizedRows,
        weights: Weights,
        batch: Indices,
        meter: EpochMeter,
        step: int,
    ) -> None:
        """Make a step, counted from 0 over the run, and count its rows in the meter."""
        self._accumulator.compute(rows, weights, batch, meter)
        if self._scaler:
            self._scaler.unscale_(self._optimizer)
        self._unfreezing.drop_frozen_gradients(step)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        if self._scaler:
            self._scaler.step(self._optimizer)  # skips the step when a gradient is infinite
            self._scaler.update()
        else:
            meter.check_finite(norm)
            self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)


def build_scaler(config: TrainConfig, device: torch.device) -> torch.amp.GradScaler | None:
    """Build a gradient scaler (Micikevicius et al., arXiv:1710.03740); None: not for fp16."""
    if autocast_dtype(config, device) != torch.float16:
        return None
    return torch.amp.GradScaler(device.type)
