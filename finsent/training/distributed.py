"""Rank, world size and device of this process, and reductions over all ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy.typing as npt
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class DistributedContext:
    """Rank, world size and device of this process."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, device: torch.device) -> DistributedContext:
        """Read the context from the process group; without a group, return a world of one rank."""
        if not dist.is_initialized():
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def sum(self, values: npt.ArrayLike | torch.Tensor) -> torch.Tensor:
        """Sum an array over all ranks in double precision. Waits for the device."""
        tensor = torch.as_tensor(values, dtype=torch.float64, device=self.device)
        if self.world_size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor.cpu()

    def min(self, value: torch.Tensor) -> int:
        """Return the smallest value over all ranks. Waits for the device."""
        if self.world_size > 1:
            value = value.clone()
            dist.all_reduce(value, dist.ReduceOp.MIN)
        return int(value)

    def any(self, value: bool) -> bool:
        """Return whether the value is true on at least one rank."""
        if self.world_size == 1:
            return value
        return self.min(torch.tensor(0 if value else 1, device=self.device)) == 0
