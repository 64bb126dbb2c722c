"""The gateway: HTTP, gRPC, tokenizer and coalescer, and in the topology `fused` the engine."""

from __future__ import annotations

import asyncio
import gc
import logging
from functools import partial
from typing import Any

import ray
from ray import serve
from ray.serve import metrics as ray_metrics
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from finsent.adapters import ray_serve
from finsent.errors import ConfigError, InputError
from finsent.inference.config import Truncate
from finsent.memory import release_early
from finsent.rollout.rollouts import Rollouts
from finsent.rollout.shadows import Shadows
from serve_app.auth import Keys
from serve_app.deployments.autoscaling import BusyTime
from serve_app.deployments.branches import Branch
from serve_app.deployments.recorder import record_listener
from serve_app.deployments.replicas import log_like_serve, make_service
from serve_app.deployments.shadow import ShadowItem, report, shadow_listener
from serve_app.grpc_server.rpc import Message, Rpc
from serve_app.http.app import build_app
from serve_app.info import ShadowReport
from serve_app.metrics import Metrics
from serve_app.problems import Problem
from serve_app.rollout.router import CanaryRouter
from serve_app.sender import Sender
from serve_app.service.explain import Explanation, explain
from serve_app.service.user_config import apply_user_config
from serve_app.settings import ServiceSettings
from serve_app.split.remote import Classifiers

log = logging.getLogger(ray_serve.LOGGER)

_SHADOW_REPORT_SECONDS = 2.0  # that /info waits for the counts of the shadow


@serve.ingress()
class Gateway:
    """One replica.

    On CPUs the engine is in the same process: a call to another process takes CPU time from the
    model. PERFORMANCE.md has the figures.
    """

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self,
        settings: str,
        shadow: DeploymentHandle[Any],
        classifier: DeploymentHandle[Any] | None = None,
        explainer: DeploymentHandle[Any] | None = None,
        recorder: DeploymentHandle[Any] | None = None,
    ) -> None:
        """Load the model and warm it up; until then the replica is not ready.

        Args:
            settings: all sections as JSON.
            shadow: handle of `ShadowReplica`.
            classifier: handle of `ClassifierReplica`; None: the gateway has an engine.
            explainer: handle of `ExplainerReplica`; None: the gateway explains.
            recorder: handle of `RecorderReplica`; None: no prediction log is written.
        """
        release_early()
        log_like_serve()
        self._settings = ServiceSettings.model_validate_json(settings)
        config = self._settings.serve
        loader = None if classifier is None else Classifiers(classifier, self._longest_deadline)
        self._service = make_service(self._settings, loader)
        root = self._settings.workspace.root
        self._shadows = Shadows(root)
        rollouts = Rollouts(root, self._service.registry)
        self._service.router = CanaryRouter(self._service, rollouts)
        self._busy_time = BusyTime()
        await self._service.models.follow()
        gc.collect()
        gc.freeze()  # objects of the model stay: no collection needs to visit them
        self._keys = Keys(config.keys_file)
        self._metrics = Metrics(self._service, ray_metrics)
        self._shadow, self._explainer = shadow, explainer
        self._is_configured = False  # by a `user_config`
        shadow_branch = Branch[ShadowItem]("shadow", self._send_to_shadow)
        self._branches: list[Branch[Any]] = [shadow_branch]
        self._service.answer_listeners.append(shadow_listener(self._service, shadow_branch))
        if recorder is not None:
            self._branches.append(Branch("recorder", recorder.record.remote))
            listener = record_listener(self._service, self._branches[-1])
            self._service.answer_listeners.append(listener)
        self._explain = (
            partial(explain, self._service) if explainer is None else self._explain_remotely
        )
        self._rpc = Rpc(
            self._service, self._keys, self._metrics, self._explain, self._shadow_report
        )

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(
            self._service,
            self._keys,
            self._metrics,
            self._explain,
            self._shadow_report,
            returns_id=False,
            at_end=self._end_branches,
        )

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Change model, limits or shadow at run time, without a restart or a failed request.

        A wrong `user_config` fails a deployment that is starting: `serve deploy` leads to
        DEPLOY_FAILED, and `serve status` has the reason. Serve would stop a replica that already
        answers, and could not replace a dead one, so these keep the settings that they had.
        """
        is_starting, self._is_configured = not self._is_configured, True
        try:
            await apply_user_config(self._service, self._settings, user_config)
        except (ConfigError, InputError):
            if is_starting and await asyncio.to_thread(ray_serve.is_deploying):
                raise

    def _longest_deadline(self) -> float:
        """Return the longest deadline of a request in seconds, which changes at run time."""
        return self._service.config.limits.timeout_ms / 1000

    # --- branches ---

    async def _end_branches(self) -> None:
        await asyncio.gather(*(branch.close() for branch in self._branches))

    async def _send_to_shadow(self, items: list[ShadowItem]) -> None:
        reference = self._service.config.shadow
        if reference is not None:
            await self._shadow.compare.remote(reference, items)

    async def _shadow_report(self) -> ShadowReport:
        """Return the stored counts of shadows, or why there are none."""
        config = self._service.config
        try:
            async with asyncio.timeout(_SHADOW_REPORT_SECONDS):
                records = await asyncio.to_thread(self._shadows.records)
        except (TimeoutError, InputError) as error:
            return {"model": config.shadow, "problem": repr(error)[:200]}
        margin = self._settings.promote.shadow_margin
        pairs = [report(record, margin) for record in records]
        return {"model": config.shadow, "pairs": pairs}

    async def _explain_remotely(
        self, text: Any, truncate: Truncate | None, sender: Sender, source: str | None
    ) -> Explanation:
        service = self._service
        assert self._explainer is not None
        try:
            result: Explanation | Problem = await self._explainer.explain.remote(
                text,
                truncate,
                sender,
                source,
                service.models.reference,
                service.config.calibrations,
            )
        except (RayServeException, ray.exceptions.RayError) as error:
            log.warning("the explainer failed, so the gateway explains: %r", error)
            return await explain(service, text, truncate, sender, source)
        if isinstance(result, Problem):
            raise result
        return result

    # --- gRPC: Serve calls methods by the names in the .proto ---

    async def Predict(self, request: Message, grpc_context: Any) -> Any:  # noqa: N802
        """See `Predict` in `sentiment.proto`; the other methods are named there, too."""
        return await self._rpc.predict(request, grpc_context)

    async def PredictList(  # noqa: N802, D102
        self, request: Message, grpc_context: Any
    ) -> Any:
        return await self._rpc.predict_list(request, grpc_context)

    async def Explain(self, request: Message, grpc_context: Any) -> Any:  # noqa: N802, D102
        return await self._rpc.explain(request, grpc_context)

    async def Info(self, request: Message, grpc_context: Any) -> Any:  # noqa: N802, D102
        return await self._rpc.info(request, grpc_context)

    async def Health(self, request: Message, grpc_context: Any) -> Any:  # noqa: N802, D102
        return await self._rpc.health(request, grpc_context)

    # --- health and autoscaling ---

    async def check_health(self) -> None:
        """Report the replica as healthy while it has a model.

        A queue that hangs would hang the event loop, and this method with it.
        """
        self._metrics.refresh()  # services that do not scale never ask for the autoscaling stats
        if not self._service.models.ready:
            raise RuntimeError("no model is loaded")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `serve_app.deployments.autoscaling` decides by; called every second."""
        self._metrics.refresh()
        stats = self._service.stats()
        return {"drain_seconds": stats["drain_seconds"], "busy_share": self._busy_time.share()}
