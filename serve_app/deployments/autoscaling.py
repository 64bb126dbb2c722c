"""The number of replicas with engines by the time for the waiting work, and of gateways by load."""

from __future__ import annotations

import math
import time
from typing import Any


class DrainTime:
    """Asks for as many replicas as drain all queues within a target time.

    A list of a thousand texts and a single text are both one request, so the number of requests
    does not predict how long clients wait. Waiting work over the measured rate does. Ray Serve
    applies its delays and bounds to the result.
    """

    def __init__(self, target_seconds: float) -> None:
        self._target_seconds = target_seconds

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas, and no state, as Serve's policies do.

        Args:
            ctx: a `ray.serve.config.AutoscalingContext`; `drain_seconds` by replica comes from
                `record_autoscaling_stats` of the replicas.
        """
        drains = ctx.aggregated_metrics.get("drain_seconds", {})
        count = replica_count(list(drains.values()), ctx.current_num_replicas, self._target_seconds)
        return count, {}


def replica_count(drain_seconds: list[float], current: int, target_seconds: float) -> int:
    """Return how many replicas drain the queues within the target time.

    The number grows with the load. It shrinks only when fewer replicas would drain the queues in
    half of the target time, so that it does not oscillate.

    Args:
        drain_seconds: waiting work of each replica that has reported.
        current: number of replicas.
        target_seconds: to drain all queues.
    """
    replica_seconds = sum(drain_seconds)
    needed = max(1, math.ceil(replica_seconds / target_seconds))
    if needed >= current:
        return needed
    return min(current, max(needed, math.ceil(2 * replica_seconds / target_seconds)))


class BusyShare:
    """Asks for as many gateways as keep each below a target share of a core.

    A gateway is one Python process, so it serves no more requests when it uses a core completely.
    """

    def __init__(self, target_share: float) -> None:
        self._target_share = target_share

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas, and no state, as Serve's policies do.

        Args:
            ctx: a `ray.serve.config.AutoscalingContext`; `busy_share` by replica comes from
                `Gateway.record_autoscaling_stats`.
        """
        shares = ctx.aggregated_metrics.get("busy_share", {})
        # Serve knows no replica that has not reported: a new one counts as idle.
        return max(1, math.ceil(sum(shares.values()) / self._target_share)), {}


class BusyTime:
    """The share of a core that this process uses."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def share(self) -> float:
        """Return the share since the last call."""
        wall, cpu = time.monotonic(), time.process_time()
        share = (cpu - self._cpu) / max(wall - self._wall, 1e-3)
        self._wall, self._cpu = wall, cpu
        return share
