"""Serve's `user_config`: settings that change while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from finsent.config import check
from finsent.errors import ConfigError, InputError
from finsent.registry.registry import Registry
from serve_app.config import ServeConfig
from serve_app.service.model import read_calibrations
from serve_app.service.service import Service
from serve_app.settings import ServiceSettings

log = logging.getLogger(__name__)

KEYS = ("model", "shadow", "shadow_share", "calibrations", "limits", "token_budget")


def check_calibrations(registry: Registry, config: ServeConfig) -> None:
    """Check that the model has the calibrations of `serve.calibrations`.

    Raises:
        InputError: one is missing or damaged.
    """
    if any(config.calibrations.values()):
        version = registry.get(config.model).version
        read_calibrations(registry, version, config.calibrations.values())


def with_user_config(settings: ServiceSettings, user_config: Mapping[str, Any]) -> ServiceSettings:
    """Return the settings that a service was deployed with, changed by a `user_config`.

    Args:
        user_config: `model`, `calibrations`, `shadow`, `shadow_share` and any of `limits` as in
            section `serve`, `token_budget` as in section `engine`. The other settings are as
            deployed.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    unknown = sorted(user_config.keys() - set(KEYS))
    if unknown:
        raise ConfigError(f"user_config.{unknown[0]}: unknown key. Use {', '.join(KEYS)}.")
    values = settings.model_dump(mode="json", include={*ServiceSettings.model_fields})
    for key, value in user_config.items():
        if key == "token_budget":
            values["engine"][key] = value
        elif key == "limits":
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"user_config.limits={value!r}: not a mapping. Write keys of serve.limits."
                )
            values["serve"][key] |= value
        else:
            values["serve"][key] = value
    return check(ServiceSettings, values)


async def apply_user_config(
    service: Service, settings: ServiceSettings, user_config: Mapping[str, Any]
) -> None:
    """Apply a `user_config` to a running service without a failed request.

    A refused `user_config` changes no setting. It is logged as an error, and /info and the metric
    `finsent_user_config_refused` report it until another one is given. Only a published model that
    cannot be loaded is tried again, as after a promotion.

    Args:
        settings: that the service was deployed with.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
        InputError: a model cannot be used.
    """
    try:
        new = with_user_config(settings, user_config)
        for reference in (new.serve.model, new.serve.shadow):
            if reference is not None:
                await asyncio.to_thread(service.registry.get, reference)
        await asyncio.to_thread(check_calibrations, service.registry, new.serve)
        service.apply(new.serve, new.engine)
        await service.models.follow(new.serve.model)
    except (ConfigError, InputError) as error:
        service.refused_config = str(error)
        log.error("user_config is refused: %s", error)
        raise
    service.refused_config = None
