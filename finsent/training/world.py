"""This process among the workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """Rank, number of ranks, and the device to compute on."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, device: torch.device) -> World:
        """From the process group, if there is one."""
        if not dist.is_initialized():
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def total(self, values: Any) -> torch.Tensor:
        """Sum an array over the ranks, in double precision; waits for the device."""
        tensor = torch.as_tensor(values, dtype=torch.float64, device=self.device)
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor.cpu()

    def least(self, value: torch.Tensor) -> int:
        """The smallest of a number over the ranks; waits for the device."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value, dist.ReduceOp.MIN)
        return int(value)

    def any(self, value: bool) -> bool:
        """Whether it is so on some rank."""
        if self.size == 1:
            return value
        return bool(self.least(torch.tensor(0 if value else 1, device=self.device)) == 0)
