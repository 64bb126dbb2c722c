"""Ray Serve's choice of a classifier for each micro-batch: the least loaded one by tokens.

Ray pickles this module by value. `loads.LOADS` is the gateway's own object, because its module is
not copied.
"""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from serve_app.split import loads
from serve_app.split.messages import MicroBatch


class LeastTokensRouter(RequestRouter):
    """Sends each micro-batch to the classifier with the fewest tokens.

    Ray's own router compares numbers of calls, but a call has 8 tokens or 1,000.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return classifiers by rank, each in a rank of its own."""
        batch = _micro_batch(pending_request)
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        names = loads.LOADS.ranked([*by_name], None if batch is None else batch.version)
        if batch is not None and names:
            loads.LOADS.assign(batch.number, names[0])
        return [[by_name[name]] for name in names]

    def on_request_routed(
        self,
        pending_request: PendingRequest,
        replica_id: ReplicaID,
        result: Any,  # noqa: ARG002 # Ray's signature
    ) -> None:
        """Count a micro-batch at the classifier that accepted it."""
        batch = _micro_batch(pending_request)
        if batch is not None:
            loads.LOADS.assign(batch.number, replica_id.unique_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Record which classifiers run."""
        super().update_replicas(replicas)
        self._record_classifiers()

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Record that a classifier died."""
        super().on_replica_actor_died(replica_id)
        self._record_classifiers()

    def _record_classifiers(self) -> None:
        loads.LOADS.set_classifiers(replica_id.unique_id for replica_id in self.curr_replicas)


def _micro_batch(request: PendingRequest | None) -> MicroBatch | None:
    """Return the micro-batch of a call; None: the call is of another method."""
    if request is None or not request.args or not isinstance(request.args[0], MicroBatch):
        return None
    return request.args[0]
