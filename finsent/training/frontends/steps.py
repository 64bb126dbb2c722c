"""What both front ends hand to their libraries: the run's steps as a stream, and a step's loss."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

from finsent.training.batches import share
from finsent.training.loop import Run
from finsent.training.loss import autocast, forward, loss_sum

Step = dict[str, int]  # the libraries look into a batch by names


class Steps(Dataset[Step]):
    """One item a step that is left of the run: the libraries take them all for one epoch, so that a
    run that goes on in the middle of one is nothing special to them."""

    def __init__(self, run: Run) -> None:
        self._count: int = run.starts[-1] - run.number

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Step:
        if index >= self._count:
            raise IndexError(index)
        return {"step": index}


def loader(run: Run) -> DataLoader[Step]:
    """The steps in their order, on every rank; rows are fetched by `loss_of`."""
    return DataLoader(Steps(run), batch_size=None, shuffle=False)


def loss_of(run: Run, model: torch.nn.Module) -> torch.Tensor:
    """The loss of this rank's rows of the next step, and count them.

    Its mean over the ranks, which DDP makes, is the weighted mean over the step's rows.

    Args:
        model: the run's, maybe wrapped.
    """
    run.before_step()
    world, batch = run.world, run.batch
    mine = share(batch, world.rank, world.size)
    # A rank without a row must still take part in the gradient exchange: with weight 0.
    rows, counts = (mine, 1.0) if len(mine) else (batch[:1], 0.0)
    whole = float(run.weights[batch].sum())
    tokens = run.rows.batch(rows)
    with autocast(run.config, world.device):
        logits = forward(model, tokens, world.device)
    weights = run.weights[rows] * counts
    loss = loss_sum(logits, tokens.targets, weights, run.config.label_smoothing)
    padded = tokens.padded_tokens if len(mine) else 0
    run.meter.add(loss.detach(), run.weights[mine], run.rows.lengths[mine], padded)
    return loss * (world.size / max(whole, 1e-12))


def after(run: Run) -> bool:
    """A step has been made; returns whether it was the last one."""
    run.after_step()
    if run.done < len(run.batches):
        return False
    run.end_epoch()
    if run.over:
        return True
    run.start_epoch()
    return False
