"""The replicas next to the gateways: classifier, explainer, shadow and recorder."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

from ray import serve

from finsent.adapters import ray_serve
from finsent.errors import InputError
from finsent.inference.config import Truncate
from finsent.memory import release_early
from finsent.registry.registry import Registry
from finsent.rollout.shadows import Shadows
from finsent.storage import Location
from serve_app.deployments.recorder import RecordedAnswer, Recorder
from serve_app.deployments.shadow import Shadow, ShadowItem
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.explain import Explanation, explain, follow_gateway
from serve_app.service.model import ModelLoader
from serve_app.service.service import Service
from serve_app.settings import ServiceSettings
from serve_app.split.classifier import Classifier
from serve_app.split.messages import (
    ComputedBatch,
    EngineInfo,
    MicroBatch,
    NotLoaded,
    RefusedLoad,
)


class ExplainerReplica:
    """Explains with its own engine, so that long texts do not delay predictions."""

    async def __init__(self, settings: str) -> None:  # type: ignore[misc] # Serve awaits it
        log_like_serve()
        self._service = make_service(ServiceSettings.model_validate_json(settings))
        await self._service.models.follow()
        self._watching = asyncio.create_task(self._service.models.watch())

    async def explain(
        self,
        text: Any,
        truncate: Truncate | None,
        sender: Sender,
        source: str | None,
        model: str,
        calibrations: dict[str, str | None],
    ) -> Explanation | Problem:
        """Explain as `serve_app.service.explain.explain`; return problems instead of raising them.

        Args:
            model: alias or version of the gateway, whose `user_config` may have changed it.
            calibrations: of the gateway by tag, which its `user_config` may have changed, too.
        """
        await follow_gateway(self._service, model, calibrations)
        try:
            return await explain(self._service, text, truncate, sender, source)
        except Problem as problem:
            return problem


class ClassifierReplica:
    """Computes the micro-batches of the gateways (`serve.topology=split`)."""

    async def __init__(self, settings: str) -> None:  # type: ignore[misc] # as above
        """Load the configured model; until then the replica is not ready.

        Args:
            settings: all sections as JSON.

        Raises:
            InputError: the model cannot be used.
        """
        release_early()
        log_like_serve()
        parsed = ServiceSettings.model_validate_json(settings)
        self._classifier = Classifier(
            serve.get_replica_context().replica_id.unique_id,
            Registry(parsed.workspace.registry),
            parsed.engine,
            parsed.serve.num_gpus or 0,
        )
        answer = await self._classifier.load(parsed.serve.model)
        if isinstance(answer, RefusedLoad):
            raise InputError(answer.reason)
        gc.collect()
        gc.freeze()  # objects of the model stay: no collection needs to visit them

    async def load(self, version: str) -> EngineInfo | RefusedLoad:
        """See `Classifier.load`."""
        return await self._classifier.load(version)

    async def compute(self, batch: MicroBatch) -> ComputedBatch | NotLoaded:
        """See `Classifier.compute`."""
        return await self._classifier.compute(batch)

    async def check_health(self) -> None:
        """Report the replica as healthy while it computes."""
        self._classifier.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `autoscaling.DrainTime` decides by; called every second."""
        return {"drain_seconds": self._classifier.drain_seconds}


class ShadowReplica:
    """Holds the challenger. The first texts start the process; it ends when no texts come."""

    def __init__(self, settings: str) -> None:
        log_like_serve()
        # On the machine of a gateway the shadow uses only CPU time that the gateway does not need.
        os.nice(10)
        parsed = ServiceSettings.model_validate_json(settings)
        service = make_service(parsed)
        # The challenger need not have the gateways' calibrations: `Shadow` looks for each of them.
        service.apply(service.config.replaced(calibrations={}))
        self._shadow = Shadow(service, Shadows(parsed.workspace.root))

    async def compare(self, reference: str, items: list[ShadowItem]) -> None:
        """Classify the texts that clients sent; see `Shadow.compare`."""
        await self._shadow.compare(reference, items)


class RecorderReplica:
    """Writes the prediction log. It is one process, so that the log has few files."""

    def __init__(self, root: Location, flush_seconds: float) -> None:
        log_like_serve()
        self._recorder = Recorder(root, flush_seconds)

    async def record(self, items: list[RecordedAnswer]) -> int:
        """Accept answers; return how many were accepted."""
        return self._recorder.record(items)

    async def __del__(self) -> None:
        """Store the answers that wait. Serve awaits this method when the replica ends."""
        await self._recorder.close()


def make_service(settings: ServiceSettings, loader: ModelLoader | None = None) -> Service:
    """Return a service that has not loaded its model yet.

    Args:
        loader: loads model versions; None: into this process.
    """
    return Service(settings.workspace.registry, settings.serve, settings.engine, loader)


def log_like_serve() -> None:
    """Write the logs of finsent to the log of this replica."""
    ray_serve.log_to_serve("finsent", "finsent.requests", "serve_app")
