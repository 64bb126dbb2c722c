"""The Serve graph: gateways that hold an engine each, and what they scale by.

`serve run serve_app.graph:app config=configs/serve.yaml` builds it; so does `ray_jobs.serve`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig

from finsent.config import load
from finsent.errors import ConfigError, InputError
from finsent.settings import Settings
from serve_app.http import build_app
from serve_app.service import Service

log = logging.getLogger("ray.serve")

NAME = "finsent"


@serve.ingress()
class Gateway:
    """One replica: HTTP, tokeniser, coalescer and engine in one process.

    A hop to classifiers in processes of their own costs more than it brings where the model takes
    milliseconds: PERFORMANCE.md has the numbers.
    """

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc] # Serve awaits it
        """Load the model and warm it up; until then the replica is not ready.

        Args:
            settings: all sections, as JSON has them.
        """
        _log_like_serve()
        self._settings = Settings.model_validate(settings)
        registry, config = self._settings.registry_dir, self._settings.serve
        self._service = Service(registry, config, self._settings.engine)
        await self._service.follow()

    def __serve_build_asgi_app__(self) -> Any:
        keys = self._settings.serve.api_keys
        return build_app(self._service, Path(keys) if keys else None, returns_id=False)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take another model at run time, without a restart or a failed request.

        One that can't be used is logged and shown by /info; the old one goes on.
        """
        unknown = user_config.keys() - {"model"}
        if unknown:
            log.error("user_config: unknown %s; it takes model", ", ".join(sorted(unknown)))
        if "model" not in user_config:
            return
        try:
            await self._service.follow(user_config["model"])
        except InputError as error:
            log.error("user_config.model=%r is refused: %s", user_config["model"], error)

    async def check_health(self) -> None:
        """Healthy as long as a model is there: its queue can't hang without the event loop."""
        if not self._service.ready:
            raise RuntimeError("no model is loaded")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `serve_app.autoscaling` goes by."""
        return self._service.stats()


def _log_like_serve() -> None:
    """What this package logs goes where Serve's own lines go."""
    for name in ("finsent", "finsent.requests", "serve_app"):
        ours = logging.getLogger(name)
        ours.setLevel(logging.INFO)
        ours.handlers = logging.getLogger("ray.serve").handlers
        ours.propagate = False


def build(settings: Settings) -> Any:
    """The application for settings, to be run or deployed."""
    config = settings.serve
    # Far above what we refuse ourselves, with 429: Serve must never hold requests back unseen.
    most = 2 * config.limits.requests
    options: dict[str, Any] = {
        "name": "Gateway",
        "max_ongoing_requests": most,
        "ray_actor_options": {"num_cpus": config.num_cpus},
        "health_check_period_s": 5,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": 10,
        "max_surge_percent": 100,
        "user_config": {"model": config.model},
        # Requests are logged by us, where something is wrong.
        "logging_config": LoggingConfig(enable_access_log=False),
    }
    if config.max_replicas > config.min_replicas:
        options["autoscaling_config"] = {
            "min_replicas": config.min_replicas,
            "max_replicas": config.max_replicas,
            "upscale_delay_s": config.upscale_seconds,
            "downscale_delay_s": config.downscale_seconds,
            "look_back_period_s": 5,
            "policy": {
                "policy_function": "serve_app.autoscaling:DrainTime",
                "policy_kwargs": {"target_seconds": config.drain_seconds},
            },
        }
    else:
        options["num_replicas"] = config.min_replicas
    data = settings.model_dump(mode="json")
    # Replicas have other working directories.
    data["storage"]["root"] = str(settings.root)
    data["registry"]["root"] = str(settings.registry_dir)
    if config.api_keys:
        data["serve"]["api_keys"] = str(Path(config.api_keys).expanduser().absolute())
    gateway: Any = serve.deployment(Gateway)
    return gateway.options(**options).bind(data)


def app(args: dict[str, str]) -> Any:
    """Builder for `serve run` and `serve build`.

    Args:
        args: `config`: YAML files, separated by commas; all others are overrides, e.g. serve.model.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    args = dict(args)
    files = [name for name in str(args.pop("config", "")).split(",") if name]
    settings = load(Settings, files, [f"{key}={value}" for key, value in args.items()])
    if not settings.registry_dir.is_dir():
        raise ConfigError(
            f"registry.root={str(settings.registry_dir)!r}: no registry there; publish a model "
            "first, or name the directory of one"
        )
    return build(settings)
