"""Exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import PreTrainedModel


class ExponentialMovingAverage:
    """An exponential moving average of the weights (Polyak & Juditsky 1992), as a second model.

    The decay of update t is at most (1 + t) / (10 + t), as in TensorFlow's
    `ExponentialMovingAverage(num_updates=)`. Otherwise the average of a short run would stay near
    the initial weights.
    """

    def __init__(self, model: PreTrainedModel, decay: float) -> None:
        self.model: PreTrainedModel = copy.deepcopy(model)
        self.model.eval().requires_grad_(False)
        self._decay = decay
        self._averages = [*self.model.parameters()]

    @torch.no_grad()
    def update(self, model: PreTrainedModel, step: int) -> None:
        """Average in the weights after a step, counted from 0 over the run."""
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self._averages, [*model.parameters()], step)
