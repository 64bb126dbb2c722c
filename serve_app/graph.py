"""The Serve application: gateways, engines, and branches next to them.

`serve run serve_app.graph:app config=configs/demo.yaml` builds it; so does `ray_jobs.serve`.

    client -> Gateway (HTTP, gRPC, tokenizer, coalescer)
                |= Classifier (engine), or in the topology `fused` the engine of the gateway
                |- Explainer (serve.explainers; else the gateway explains)
                |. Shadow    (started when one is named; a challenger)      } fed in batches;
                |. Recorder  (serve.record; the prediction log)             } no request waits
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.schema import LoggingConfig

from finsent.errors import ConfigError
from finsent.registry.registry import Registry
from serve_app.config import ServeConfig
from serve_app.deployments.gateway import Gateway
from serve_app.deployments.replicas import (
    ClassifierReplica,
    ExplainerReplica,
    RecorderReplica,
    ShadowReplica,
)
from serve_app.settings import ServiceSettings, load_service
from serve_app.split.topology import cluster_gpus, for_gpus, resolved

NAME = "finsent"
_ROUTER: Any = "serve_app.split.router:LeastTokensRouter"  # Ray's mypy plugin expects a dict
_CLASSIFIER_CALLS = 1000  # at a time
_SHADOW_IDLE_SECONDS = 300.0  # without texts, after which the process of the shadow ends


def build(settings: ServiceSettings) -> Any:
    """Return the application for settings, ready to run or deploy."""
    config = resolved(settings.serve, cluster_gpus())
    # The branches have engines on CPUs.
    data = _as_json(settings.replaced(serve=config.replaced(num_gpus=0)))
    served = _as_json(settings.replaced(serve=config, engine=for_gpus(settings.engine, config)))
    branches = {"shadow": _shadow(data)}
    if config.topology == "split":
        branches["classifier"] = _classifier(config, served)
    if config.explainers:
        branches["explainer"] = _explainer(config, data)
    if config.record:
        branches["recorder"] = _recorder(settings)
    gateway = _deployment(
        Gateway,
        "Gateway",
        **(_gateway_options(config) if config.topology == "split" else _engine_options(config)),
        # Far above the limit at which finsent answers 429: Serve must not hold requests back.
        max_ongoing_requests=2 * config.limits.requests,
        max_surge_percent=100,
        user_config={"model": config.model},
    )
    return gateway.bind(served, **branches)


def _deployment(replica: type, name: str, **options: Any) -> Any:
    deployment: Any = serve.deployment(replica)
    return deployment.options(
        name=name,
        # finsent logs the requests that fail.
        logging_config=LoggingConfig(enable_access_log=False),
        health_check_period_s=5,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=10,
        **options,
    )


def _as_json(settings: ServiceSettings) -> str:
    """Return settings whose paths are absolute, because replicas have other working directories."""
    data = settings.model_dump(mode="json", include={*ServiceSettings.model_fields})
    keys_file = settings.serve.keys_file
    data["storage"]["root"] = settings.workspace.root.address
    data["registry"]["root"] = settings.workspace.registry.address
    data["serve"]["api_keys"] = None if keys_file is None else str(keys_file)
    return json.dumps(data)


def _shadow(data: str) -> Any:
    shadow = _deployment(
        ShadowReplica,
        "Shadow",
        ray_actor_options={"num_cpus": 0},
        autoscaling_config={
            "min_replicas": 0,
            "max_replicas": 1,
            "upscale_delay_s": 0,
            "downscale_to_zero_delay_s": _SHADOW_IDLE_SECONDS,
        },
    )
    return shadow.bind(data)


def _explainer(config: ServeConfig, data: str) -> Any:
    explainer = _deployment(
        ExplainerReplica,
        "Explainer",
        num_replicas=config.explainers,
        ray_actor_options={"num_cpus": config.num_cpus},
    )
    return explainer.bind(data)


def _recorder(settings: ServiceSettings) -> Any:
    recorder = _deployment(RecorderReplica, "Recorder", ray_actor_options={"num_cpus": 0})
    return recorder.bind(settings.workspace.root, settings.serve.record_seconds)


def _classifier(config: ServeConfig, data: str) -> Any:
    classifier = _deployment(
        ClassifierReplica,
        "Classifier",
        **_engine_options(config),
        # Gateways limit the micro-batches of a classifier.
        max_ongoing_requests=_CLASSIFIER_CALLS,
        max_surge_percent=100,
        request_router_config=RequestRouterConfig(request_router_class=_ROUTER),
    )
    return classifier.bind(data)


def _engine_options(config: ServeConfig) -> dict[str, object]:
    """Return the options of a deployment whose replicas have engines."""
    resources = {"num_cpus": config.num_cpus, "num_gpus": config.num_gpus}
    policy = ("DrainTime", {"target_seconds": config.drain_seconds})
    return {
        "ray_actor_options": resources,
        **_scaling(config, config.min_replicas, config.max_replicas, *policy),
    }


def _gateway_options(config: ServeConfig) -> dict[str, object]:
    """Return the options of gateways without engines."""
    gateways = config.gateways
    policy = ("BusyShare", {"target_share": gateways.busy_share})
    return {
        "ray_actor_options": {"num_cpus": gateways.num_cpus},
        **_scaling(config, gateways.min_replicas, gateways.max_replicas, *policy),
    }


def _scaling(
    config: ServeConfig, smallest: int, largest: int, policy: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return the options of a deployment that set its number of replicas.

    Args:
        policy: class of `serve_app.deployments.autoscaling`.
        arguments: of the policy.
    """
    if smallest == largest:
        return {"num_replicas": smallest}
    return {
        "autoscaling_config": {
            "min_replicas": smallest,
            "max_replicas": largest,
            "upscale_delay_s": config.upscale_seconds,
            "downscale_delay_s": config.downscale_seconds,
            # Seconds between reports of replicas. Ray's default of 10 is longer than the period
            # that Ray averages over.
            "metrics_interval_s": 1,
            "look_back_period_s": 5,
            "policy": {
                "policy_function": f"serve_app.deployments.autoscaling:{policy}",
                "policy_kwargs": arguments,
            },
        }
    }


def app(args: Mapping[str, object]) -> Any:
    """Return the application for `serve run` and `serve build`.

    Args:
        args: `config`: YAML files, separated by commas; all others are overrides, e.g. serve.model.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    files = [name for name in str(args.get("config", "")).split(",") if name]
    overrides = [f"{key}={_override(value)}" for key, value in args.items() if key != "config"]
    settings = load_service(files, overrides)
    if not Registry(settings.workspace.registry).exists():
        raise ConfigError(
            f"registry.root={str(settings.workspace.registry)!r}: no registry there. Publish a "
            "model first, or name the root of a registry."
        )
    return build(settings)


def _override(value: object) -> str:
    """Return a value of a YAML file as an override has it: null is not the word None."""
    return value if isinstance(value, str) else json.dumps(value)
