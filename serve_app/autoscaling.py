"""How many replicas: by the time that waiting work will take, not by the number of requests."""

from __future__ import annotations

import math
from typing import Any


class DrainTime:
    """As many replicas as bring the predicted time to drain all queues to a target.

    A list of a thousand texts and a single text are both one request; the work that waits, over the
    rate measured, is what a client feels. Ray Serve applies delays and bounds around it.
    """

    def __init__(self, target_seconds: float) -> None:
        self._target = target_seconds

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Serve's policy protocol.

        Args:
            ctx: a `ray.serve.config.AutoscalingContext`; `drain_seconds` by replica is what
                `Gateway.record_autoscaling_stats` gave.

        Returns:
            Wanted replicas, and no state.
        """
        drains = ctx.aggregated_metrics.get("drain_seconds", {})
        return wanted(list(drains.values()), ctx.current_num_replicas, self._target), {}


def wanted(drains: list[float], replicas: int, target: float) -> int:
    """Replicas for queues that take so many seconds each.

    Growing follows the load; shrinking waits until fewer would do at half of the target, so that
    the number does not swing.

    Args:
        drains: seconds of work by replica, where known.
        target: seconds.
    """
    work = sum(drains)  # replica-seconds
    needed = max(1, math.ceil(work / target))
    if needed >= replicas:
        return needed
    return min(replicas, max(needed, math.ceil(2 * work / target)))
