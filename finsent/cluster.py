"""Resources of the connected Ray cluster, and what fits on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finsent.adapters.ray_core import Node, live_nodes


@dataclass(frozen=True)
class Cluster:
    """The logical resources of a cluster's live machines."""

    nodes: Sequence[Node]

    @classmethod
    def connected(cls) -> Cluster:
        """Return the cluster that this process is connected to."""
        return cls(live_nodes())

    @property
    def cpus(self) -> int:
        """Logical CPUs of all machines."""
        return int(self.total("CPU"))

    @property
    def gpus(self) -> float:
        """GPUs of all machines."""
        return self.total("GPU")

    def total(self, resource: str) -> float:
        """Return the sum of a resource over all machines."""
        return sum(node.resources.get(resource, 0.0) for node in self.nodes)

    def slots(self, cpus: int, gpus: float = 0.0) -> int:
        """Return how many workers fit, each on a single machine.

        Args:
            cpus: of each worker.
            gpus: of each worker; a share below 1 is a share of a single GPU.
        """
        return sum(_slots(node, cpus, gpus) for node in self.nodes)


def _slots(node: Node, cpus: int, gpus: float) -> int:
    count = node.cpus // cpus
    if gpus:
        count = min(count, node.gpus * int(1 / gpus + 1e-6))
    return count
