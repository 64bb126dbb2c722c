"""The replicas next to the gateways: explainer, shadow and recorder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from finsent.adapters import ray_serve
from finsent.inference.config import Truncate
from serve_app.deployments import recorder
from serve_app.deployments.recorder import RecordedAnswer
from serve_app.deployments.shadow import AgreementReport, Shadow, ShadowItem
from serve_app.problems import Problem
from serve_app.sender import Sender
from serve_app.service.explain import Explanation, explain, follow_gateway
from serve_app.service.service import Service
from serve_app.settings import ServiceSettings


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


class ShadowReplica:
    """Holds the challenger. The first texts start the process; it ends when no texts come."""

    def __init__(self, settings: str) -> None:
        log_like_serve()
        # On the machine of a gateway it uses the CPU time that the gateway leaves.
        os.nice(10)
        service = make_service(ServiceSettings.model_validate_json(settings))
        # The challenger need not have the gateways' calibrations: `Shadow` looks for each of them.
        service.apply(service.config.replaced(calibrations={}))
        self._shadow = Shadow(service)

    async def compare(self, reference: str, items: list[ShadowItem]) -> None:
        """Classify the texts that clients sent; see `Shadow.compare`."""
        await self._shadow.compare(reference, items)

    async def report(self) -> list[AgreementReport]:
        """Return the counts by pair of versions."""
        return self._shadow.report()


class RecorderReplica:
    """Writes the prediction log. It is one process, so that lines do not mix."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def record(self, items: list[RecordedAnswer]) -> int:
        """Append answers to the log; return how many."""
        return await asyncio.to_thread(recorder.write, self._folder, items)


def make_service(settings: ServiceSettings) -> Service:
    """Return a service that has not loaded its model yet."""
    return Service(settings.workspace.registry, settings.serve, settings.engine)


def log_like_serve() -> None:
    """Write the logs of finsent to the log of this replica."""
    ray_serve.log_to_serve("finsent", "finsent.requests", "serve_app")
