"""What an epoch adds up on one rank, without waiting for the device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from finsent.training.loss import Weights
from finsent.training.world import World

_NEVER = 2**62


@dataclass(frozen=True)
class Sums:
    """Totals over ranks; JSON-able."""

    loss: float = 0.0  # weighted
    weight: float = 0.0
    rows: int = 0
    tokens: int = 0  # real ones
    padded: int = 0  # with padding
    seconds: float = 0.0  # the longest of a rank

    def __sub__(self, other: Sums) -> Sums:
        mine, theirs = asdict(self), asdict(other)
        return Sums(**{name: mine[name] - theirs[name] for name in mine})

    @property
    def mean_loss(self) -> float:
        """Weighted mean over the rows."""
        return self.loss / max(self.weight, 1e-12)

    @property
    def padding_share(self) -> float:
        """Padding's share of the computed tokens."""
        return 1 - self.tokens / max(self.padded, 1)

    def throughput(self) -> dict[str, Any]:
        """An epoch's own metrics."""
        return {
            "train_loss": self.mean_loss,
            "train_rows": self.rows,
            "rows_per_second": self.rows / max(self.seconds, 1e-9),
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
            "padding_share": self.padding_share,
        }


class Meter:
    """Counts one rank's steps of an epoch; the loss stays on the device until it is asked for."""

    def __init__(self, world: World, before: Sums | None = None) -> None:
        self._world = world
        # What a checkpoint holds is of all ranks together: one goes on with it.
        before = before if before is not None and world.rank == 0 else Sums()
        self._weight, self._rows = before.weight, before.rows
        self._tokens, self._padded = before.tokens, before.padded
        device = world.device
        self._loss = torch.tensor(before.loss, dtype=torch.float64, device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._bad = torch.full((), _NEVER, dtype=torch.int64, device=device)

    def begin(self, step: int) -> None:
        """A step of the epoch begins, counted from 0."""
        self._step.fill_(step)

    def add(
        self,
        loss: torch.Tensor,
        weights: Weights,
        lengths: np.typing.NDArray[np.int64],
        padded: int,
    ) -> None:
        """Count this rank's rows of a step; `loss` is their weighted sum."""
        self._loss += loss
        self._weight += float(weights.sum())
        self._rows += len(weights)
        self._tokens += int(lengths.sum())
        self._padded += padded
        self.check(loss)

    def check(self, value: torch.Tensor) -> None:
        """Remember the first step at which a value was not a finite number."""
        here = torch.where(torch.isfinite(value), _NEVER, self._step)
        self._bad = torch.minimum(self._bad, here)

    def bad_step(self) -> int | None:
        """The first bad step on any rank, if there was one; asks all ranks."""
        found = self._world.least(self._bad)
        return None if found == _NEVER else found

    def total(self, seconds: float) -> Sums:
        """Sums over the ranks; asks all ranks.

        Args:
            seconds: since the epoch began, without what is not training.
        """
        values = self._world.total(
            torch.stack(
                [
                    self._loss.detach(),
                    *(
                        torch.tensor(float(value), dtype=torch.float64, device=self._world.device)
                        for value in (self._weight, self._rows, self._tokens, self._padded)
                    ),
                ]
            )
        ).tolist()
        loss, weight, rows, tokens, padded = values
        return Sums(loss, weight, int(rows), int(tokens), int(padded), seconds)

    def local(self) -> Sums:
        """This rank's sums, for a person; waits for the device."""
        return Sums(float(self._loss), self._weight, self._rows, self._tokens, self._padded)
