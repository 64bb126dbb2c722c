"""Counts of one rank in an epoch, without waiting for the device."""

from __future__ import annotations

import numpy as np
import torch

from finsent.training.distributed import DistributedContext
from finsent.training.loss import Weights
from finsent.training.metrics import EpochTotals

_NEVER = 2**62  # a step that no epoch reaches


class EpochMeter:
    """Counts one rank's steps of an epoch. The loss stays on the device until it is read.

    Args:
        before: totals of the epoch up to the checkpoint from which the run resumes.
    """

    def __init__(self, context: DistributedContext, before: EpochTotals | None = None) -> None:
        self._context = context
        # A checkpoint stores totals over all ranks: one rank continues them.
        before = before if before is not None and context.rank == 0 else EpochTotals()
        self._weight, self._rows = before.weight, before.rows
        self._tokens, self._padded = before.tokens, before.padded
        device = context.device
        self._loss = torch.tensor(before.loss, dtype=torch.float64, device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._bad_step = torch.full((), _NEVER, dtype=torch.int64, device=device)

    def begin_step(self, step: int) -> None:
        """Set the step of the epoch that the next counts belong to, counted from 0."""
        self._step.fill_(step)

    def add(
        self,
        loss: torch.Tensor,
        weights: Weights,
        lengths: np.typing.NDArray[np.int64],
        padded: int,
    ) -> None:
        """Count this rank's rows of a step.

        Args:
            loss: weighted sum of the rows' losses.
            lengths: tokens of each row.
            padded: tokens with padding.
        """
        self._loss += loss
        self._weight += float(weights.sum())
        self._rows += len(weights)
        self._tokens += int(lengths.sum())
        self._padded += padded
        self.check_finite(loss)

    def check_finite(self, value: torch.Tensor) -> None:
        """Record the current step as bad where the value is not a finite number."""
        step = torch.where(torch.isfinite(value), _NEVER, self._step)
        self._bad_step = torch.minimum(self._bad_step, step)

    def bad_step(self) -> int | None:
        """Return the first bad step on any rank; None: all are good. Every rank must call."""
        step = self._context.min(self._bad_step)
        return None if step == _NEVER else step

    def total(self, seconds: float) -> EpochTotals:
        """Return the totals over all ranks. Every rank must call.

        Args:
            seconds: time of the epoch's steps on this rank.
        """
        device = self._context.device
        counts = (self._weight, self._rows, self._tokens, self._padded)
        tensors = [torch.tensor(float(n), dtype=torch.float64, device=device) for n in counts]
        sums = self._context.sum(torch.stack([self._loss.detach(), *tensors])).tolist()
        loss, weight, rows, tokens, padded = sums
        return EpochTotals(
            loss=loss,
            weight=weight,
            rows=int(rows),
            tokens=int(tokens),
            padded=int(padded),
            seconds=seconds,
        )

    def local(self) -> EpochTotals:
        """Return this rank's totals. Waits for the device."""
        return EpochTotals(
            loss=float(self._loss),
            weight=self._weight,
            rows=self._rows,
            tokens=self._tokens,
            padded=self._padded,
        )
