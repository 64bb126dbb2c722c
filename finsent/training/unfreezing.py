"""Gradual unfreezing of the encoder's layers."""

from __future__ import annotations

from transformers import PreTrainedModel

from finsent.training.config import TrainConfig
from finsent.training.optim import parameter_depths


class GradualUnfreezing:
    """Gradual unfreezing (Howard & Ruder, arXiv:1801.06146): layers join from the top.

    The gradients of frozen layers are dropped before the optimizer's step, so frozen layers have
    neither moments nor decay. They are computed nevertheless: DDP requires the same gradients in
    every step.

    Args:
        epoch_steps: mean number of steps in an epoch.
    """

    def __init__(self, model: PreTrainedModel, config: TrainConfig, epoch_steps: float) -> None:
        depths = parameter_depths(model, config)
        deepest = max(depths.values(), default=0)
        self._period = config.unfreeze_epochs * epoch_steps / max(1, deepest)
        self._parameters = [
            (depths[name] * self._period, parameter) for name, parameter in model.named_parameters()
        ]

    def drop_frozen_gradients(self, step: int) -> None:
        """Drop the gradients of layers that are frozen at a step, counted from 0 over the run."""
        if self._period:
            for first_step, parameter in self._parameters:
                if step < first_step:
                    parameter.grad = None
