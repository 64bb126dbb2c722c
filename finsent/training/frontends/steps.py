"""A run's steps as a data loader, and the loss of a step, for the libraries' trainers."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

from finsent.training.batches import rank_rows
from finsent.training.loss import autocast, forward, loss_sum
from finsent.training.metrics import MIN_WEIGHT
from finsent.training.training_run import TrainingRun

StepItem = dict[str, int]  # the libraries expect a mapping by name


class RemainingSteps(Dataset[StepItem]):
    """One item per remaining step of the run.

    The libraries see all steps as one epoch, so a run that resumes in the middle of an epoch needs
    no support from them.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._count: int = run.total_steps - run.step

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> StepItem:
        if index >= self._count:
            raise IndexError(index)
        return {"step": index}


def step_loader(run: TrainingRun) -> DataLoader[StepItem]:
    """Return a loader of the steps in their order, on every rank; `step_loss` reads the rows."""
    return DataLoader(RemainingSteps(run), batch_size=None, shuffle=False)


def step_loss(run: TrainingRun, model: torch.nn.Module) -> torch.Tensor:
    """Return the loss of this rank's rows of the next step, and count the rows.

    Its mean over the ranks, which DDP computes, is the weighted mean over the step's rows.

    Args:
        model: the run's, which a library may have wrapped.
    """
    run.before_step()
    context, batch = run.context, run.batch
    own_rows = rank_rows(batch, context.rank, context.world_size)
    # A rank without rows still takes part in the gradient exchange: with a row of weight 0.
    rows, factor = (own_rows, 1.0) if len(own_rows) else (batch[:1], 0.0)
    batch_weight = float(run.row_weights[batch].sum())
    tokens = run.rows.batch(rows)
    with autocast(run.config, context.device):
        logits = forward(model, tokens, context.device)
    weights = run.row_weights[rows] * factor
    loss = loss_sum(logits, tokens.targets, weights, run.config.label_smoothing)
    padded = tokens.padded_tokens if len(own_rows) else 0
    lengths = run.rows.lengths[own_rows]
    run.meter.add(loss.detach(), run.row_weights[own_rows], lengths, padded)
    return loss * (context.world_size / max(batch_weight, MIN_WEIGHT))
