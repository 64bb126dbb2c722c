"""The Serve graph: gateways that hold an engine each, and branches beside them.

`serve run serve_app.graph:app config=configs/demo.yaml` builds it; so does `ray_jobs.serve`.

    client -> Gateway (HTTP, gRPC, tokenizer, coalescer, engine; 1..max_replicas)
                |- Explainer (serve.explainers; else the gateway explains)
                |. Shadow    (started when one is named; a challenger)      } fed in batches,
                |. Recorder  (serve.record; the prediction log)             } never waited for
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import metrics as ray_metrics
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from finsent.errors import ConfigError, InputError
from finsent.inference.config import Truncate
from finsent.memory import release_early
from serve_app import live, recorder
from serve_app.auth import Keys
from serve_app.branches import Branch, Item, record_tap, shadow_tap
from serve_app.explain import explain, keep_up
from serve_app.http import build_app
from serve_app.incoming import Asker
from serve_app.metrics import Metrics
from serve_app.problems import Problem
from serve_app.rpc import Message, Rpc
from serve_app.service import Service
from serve_app.settings import ServiceSettings, load_service
from serve_app.shadow import Shadow

log = logging.getLogger("ray.serve")

NAME = "finsent"
_REPORT_SECONDS = 2.0  # for the shadow's counts, which /info shows
_IDLE_SECONDS = 300.0  # without texts; then the shadow's process ends, and its counts with it


@serve.ingress()
class Gateway:
    """One replica: HTTP, gRPC, tokenizer, coalescer and engine in one process.

    A hop to classifiers in processes of their own costs more than it brings where the model takes
    milliseconds: PERFORMANCE.md has the numbers.
    """

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, settings: dict[str, Any], shadow: Any, explainer: Any = None, recorder: Any = None
    ) -> None:
        """Load the model and warm it up; until then the replica is not ready.

        Args:
            settings: all sections, as JSON has them.
            shadow: handle of `ShadowReplica`; so on.
        """
        release_early()
        _log_like_serve()
        self._settings = ServiceSettings.model_validate(settings)
        config = self._settings.serve
        self._service = _service(self._settings)
        await self._service.follow()
        gc.collect()
        gc.freeze()  # what is there stays: no collection need look at it again
        self._keys = Keys(config.keys_file)
        self._metrics = Metrics(self._service, ray_metrics)
        self._shadow, self._explainer = shadow, explainer
        self._configured = False  # by a `user_config`
        self._branches = [Branch("shadow", self._to_shadow)]
        self._service.taps.append(shadow_tap(self._service, self._branches[0]))
        if recorder is not None:
            self._branches.append(Branch("recorder", recorder.record.remote))
            self._service.taps.append(record_tap(self._service, self._branches[-1]))
        self._explain = (
            partial(explain, self._service) if explainer is None else self._explain_there
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
        """Take another model, limits or shadow at run time, without a restart or a failed request.

        What can't be used fails a deployment that is starting, so that `serve deploy` leads to
        DEPLOY_FAILED and `serve status` says why. Serve would stop a replica that already answers,
        and could not replace one that died: they go on with what they had, as `live.apply` says.
        """
        starting, self._configured = not self._configured, True
        try:
            await live.apply(self._service, self._settings, user_config)
        except (ConfigError, InputError):
            if starting and await asyncio.to_thread(_deploying):
                raise

    # --- branches ---

    async def _end_branches(self) -> None:
        await asyncio.gather(*(branch.close() for branch in self._branches))

    async def _to_shadow(self, items: list[Item]) -> None:
        reference = self._service.config.shadow
        if reference is not None:
            await self._shadow.compare.remote(reference, items)

    async def _shadow_report(self) -> Any:
        """What the shadow counted, or why there is nothing."""
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                pairs = await self._shadow.report.remote()
        except (TimeoutError, RayServeException, ray.exceptions.RayError) as error:
            return {"model": self._service.config.shadow, "problem": repr(error)[:200]}
        return {"model": self._service.config.shadow, "pairs": pairs}

    async def _explain_there(
        self, text: Any, truncate: Truncate | None, asker: Asker, source: str | None
    ) -> Any:
        service = self._service
        try:
            found = await self._explainer.explain.remote(
                text, truncate, asker, source, service.wanted, service.config.calibrations
            )
        except (RayServeException, ray.exceptions.RayError) as error:
            log.warning("the explainer failed, the gateway explains: %r", error)
            return await explain(service, text, truncate, asker, source)
        if isinstance(found, Problem):
            raise found
        return found

    # --- gRPC: Serve calls methods by the names of the .proto ---

    async def Predict(self, request: Message, grpc_context: Any) -> Any:  # noqa: N802
        """See `sentiment.proto`; so on."""
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

    # --- Serve ---

    async def check_health(self) -> None:
        """Healthy as long as a model is there: its queue can't hang without the event loop."""
        self._metrics.refresh()  # where nothing scales, nobody asks for the autoscaling stats
        if not self._service.ready:
            raise RuntimeError("no model is loaded")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `serve_app.autoscaling` goes by; asked for every second."""
        self._metrics.refresh()
        return self._service.stats()


class ExplainerReplica:
    """Explains with an engine of its own, so that long texts don't hold up predictions."""

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc] # Serve awaits
        _log_like_serve()
        self._service = _service(ServiceSettings.model_validate(settings))
        await self._service.follow()
        self._watching = asyncio.create_task(self._service.watch())

    async def explain(
        self,
        text: Any,
        truncate: Truncate | None,
        asker: Asker,
        source: str | None,
        model: str,
        calibrations: dict[str, str | None],
    ) -> Any:
        """As `serve_app.explain.explain`; a problem is returned.

        Args:
            model: alias or version that the gateway follows: its `user_config` may name another.
            calibrations: of the gateway by tag, which its `user_config` may name, too.
        """
        await keep_up(self._service, model, calibrations)
        try:
            return await explain(self._service, text, truncate, asker, source)
        except Problem as problem:
            return problem


class ShadowReplica:
    """Holds the challenger. Started by the first texts for it, ended when none come."""

    def __init__(self, settings: dict[str, Any]) -> None:
        _log_like_serve()
        # On one machine with gateways it takes the time that they leave.
        os.nice(10)
        service = _service(ServiceSettings.model_validate(settings))
        # Those of the gateways' version are no need of the challenger's: `Shadow` looks for each.
        service.config = service.config.replaced(calibrations={})
        self._shadow = Shadow(service)

    async def compare(self, reference: str, items: list[Item]) -> None:
        """Ask the challenger what clients asked."""
        await self._shadow.compare(reference, items)

    async def report(self) -> list[dict[str, Any]]:
        """What was counted, by pair of versions."""
        return self._shadow.report()


class RecorderReplica:
    """Writes the prediction log: one process, so lines don't mix."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def record(self, items: list[Item]) -> int:
        """Append answers."""
        return await asyncio.to_thread(recorder.write, self._folder, items)


def _service(settings: ServiceSettings) -> Service:
    return Service(settings.registry_dir, settings.serve, settings.engine)


def _deploying() -> bool:
    """Return whether this deployment is starting or changing, not merely replacing a replica."""
    context = serve.get_replica_context()
    app = serve.status().applications.get(context.app_name)
    deployment = app and app.deployments.get(context.deployment)
    return deployment is not None and deployment.status == "UPDATING"


def _log_like_serve() -> None:
    """What this package logs goes where Serve's own lines go."""
    for name in ("finsent", "finsent.requests", "serve_app"):
        ours = logging.getLogger(name)
        ours.setLevel(logging.INFO)
        ours.handlers = logging.getLogger("ray.serve").handlers
        ours.propagate = False


def build(settings: ServiceSettings) -> Any:
    """The application for settings, to be run or deployed."""
    config = settings.serve
    data = settings.model_dump(mode="json", include={*ServiceSettings.model_fields})
    # Replicas have other working directories.
    data["storage"]["root"] = str(settings.root)
    data["registry"]["root"] = str(settings.registry_dir)
    data["serve"]["api_keys"] = str(config.keys_file) if config.keys_file else None
    common: dict[str, Any] = {
        # Requests are logged by us, where something is wrong.
        "logging_config": LoggingConfig(enable_access_log=False),
        "health_check_period_s": 5,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": 10,
    }
    cpus = {"num_cpus": config.num_cpus}
    branches: dict[str, Any] = {
        "shadow": _bind(
            ShadowReplica,
            "Shadow",
            data,
            **common,
            ray_actor_options={"num_cpus": 0},
            autoscaling_config={
                "min_replicas": 0,
                "max_replicas": 1,
                "upscale_delay_s": 0,
                "downscale_to_zero_delay_s": _IDLE_SECONDS,
            },
        )
    }
    if config.explainers:
        branches["explainer"] = _bind(
            ExplainerReplica,
            "Explainer",
            data,
            **common,
            num_replicas=config.explainers,
            ray_actor_options=cpus,
        )
    if config.record:
        branches["recorder"] = _bind(
            RecorderReplica,
            "Recorder",
            str(settings.root / "predictions"),
            **common,
            ray_actor_options={"num_cpus": 0},
        )
    return _bind(
        Gateway,
        "Gateway",
        data,
        **branches,
        **common,
        **_replicas(settings),
        # Far above what we refuse ourselves, with 429: Serve must never hold requests back unseen.
        max_ongoing_requests=2 * config.limits.requests,
        ray_actor_options=cpus,
        max_surge_percent=100,
        user_config={"model": config.model},
    )


def _bind(kind: type, name: str, *args: Any, **options: Any) -> Any:
    """A deployment with its options; handles of other ones go to its constructor."""
    handles = {
        key: options.pop(key) for key in ("shadow", "explainer", "recorder") if key in options
    }
    deployment: Any = serve.deployment(kind)
    return deployment.options(name=name, **options).bind(*args, **handles)


def _replicas(settings: ServiceSettings) -> dict[str, Any]:
    config = settings.serve
    if config.max_replicas == config.min_replicas:
        return {"num_replicas": config.min_replicas}
    return {
        "autoscaling_config": {
            "min_replicas": config.min_replicas,
            "max_replicas": config.max_replicas,
            "upscale_delay_s": config.upscale_seconds,
            "downscale_delay_s": config.downscale_seconds,
            # Seconds between reports of replicas. Ray's default of 10 is above the period that it
            # averages over.
            "metrics_interval_s": 1,
            "look_back_period_s": 5,
            "policy": {
                "policy_function": "serve_app.autoscaling:DrainTime",
                "policy_kwargs": {"target_seconds": config.drain_seconds},
            },
        }
    }


def _written(value: Any) -> str:
    """A value of a YAML file as an override has it: null is not the word None."""
    return value if isinstance(value, str) else json.dumps(value)


def app(args: dict[str, Any]) -> Any:
    """Builder for `serve run` and `serve build`.

    Args:
        args: `config`: YAML files, separated by commas; all others are overrides, e.g. serve.model.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    args = dict(args)
    files = [name for name in str(args.pop("config", "")).split(",") if name]
    settings = load_service(files, [f"{key}={_written(value)}" for key, value in args.items()])
    if not settings.registry_dir.is_dir():
        raise ConfigError(
            f"registry.root={str(settings.registry_dir)!r}: no registry there; publish a model "
            "first, or name the directory of one"
        )
    return build(settings)
