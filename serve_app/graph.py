"""The Serve application: gateways that hold an engine each, and branches next to them.

`serve run serve_app.graph:app config=configs/demo.yaml` builds it; so does `ray_jobs.serve`.

    client -> Gateway (HTTP, gRPC, tokenizer, coalescer, engine; 1..max_replicas)
                |- Explainer (serve.explainers; else the gateway explains)
                |. Shadow    (started when one is named; a challenger)      } fed in batches;
                |. Recorder  (serve.record; the prediction log)             } no request waits
"""

from __future__ import annotations

import json
from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig

from finsent.errors import ConfigError
from finsent.registry.registry import Registry
from serve_app.config import ServeConfig
from serve_app.deployments.gateway import Gateway
from serve_app.deployments.replicas import ExplainerReplica, RecorderReplica, ShadowReplica
from serve_app.settings import ServiceSettings, load_service

NAME = "finsent"
_SHADOW_IDLE_SECONDS = 300.0  # without texts, after which the shadow's process and counts end


def build(settings: ServiceSettings) -> Any:
    """Return the application for settings, ready to run or deploy."""
    config = settings.serve
    data = _as_json(settings)
    branches = {"shadow": _shadow(data)}
    if config.explainers:
        branches["explainer"] = _explainer(config, data)
    if config.record:
        branches["recorder"] = _recorder(settings)
    gateway = _deployment(
        Gateway,
        "Gateway",
        **_scaling(config),
        # Far above the limit at which finsent answers 429: Serve must not hold requests back.
        max_ongoing_requests=2 * config.limits.requests,
        ray_actor_options={"num_cpus": config.num_cpus},
        max_surge_percent=100,
        user_config={"model": config.model},
    )
    return gateway.bind(data, **branches)


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
    return recorder.bind(str((settings.workspace.root / "predictions").path))


def _scaling(config: ServeConfig) -> dict[str, Any]:
    """Return the options of a deployment that set its number of replicas."""
    if config.max_replicas == config.min_replicas:
        return {"num_replicas": config.min_replicas}
    return {
        "autoscaling_config": {
            "min_replicas": config.min_replicas,
            "max_replicas": config.max_replicas,
            "upscale_delay_s": config.upscale_seconds,
            "downscale_delay_s": config.downscale_seconds,
            # Seconds between reports of replicas. Ray's default of 10 is longer than the period
            # that Ray averages over.
            "metrics_interval_s": 1,
            "look_back_period_s": 5,
            "policy": {
                "policy_function": "serve_app.deployments.autoscaling:DrainTime",
                "policy_kwargs": {"target_seconds": config.drain_seconds},
            },
        }
    }


def app(args: dict[str, Any]) -> Any:
    """Return the application for `serve run` and `serve build`.

    Args:
        args: `config`: YAML files, separated by commas; all others are overrides, e.g. serve.model.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    args = dict(args)
    files = [name for name in str(args.pop("config", "")).split(",") if name]
    settings = load_service(files, [f"{key}={_override(value)}" for key, value in args.items()])
    if not Registry(settings.workspace.registry).exists():
        raise ConfigError(
            f"registry.root={str(settings.workspace.registry)!r}: no registry there. Publish a "
            "model first, or name the root of a registry."
        )
    return build(settings)


def _override(value: Any) -> str:
    """Return a value of a YAML file as an override has it: null is not the word None."""
    return value if isinstance(value, str) else json.dumps(value)
