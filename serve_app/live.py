"""What Serve's `user_config` changes while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from finsent.config import check
from finsent.errors import ConfigError, InputError
from finsent.registry.registry import Registry
from serve_app.config import ServeConfig
from serve_app.model import read_calibrations
from serve_app.service import Service
from serve_app.settings import ServiceSettings

log = logging.getLogger(__name__)

KEYS = ("model", "shadow", "shadow_share", "calibrations", "limits", "token_budget")


def check_calibrations(registry: Registry, config: ServeConfig) -> None:
    """Refuse calibrations that the model does not have.

    Raises:
        InputError: one is missing or damaged.
    """
    if any(config.calibrations.values()):
        version = registry.get(config.model).version
        read_calibrations(registry, version, config.calibrations.values())


def changed(settings: ServiceSettings, user_config: Mapping[str, Any]) -> ServiceSettings:
    """The settings that a service was deployed with, with what `user_config` says instead.

    Args:
        user_config: `model`, `calibrations`, `shadow`, `shadow_share` and any of `limits` as in
            section `serve`, `token_budget` as in section `engine`. What it leaves out is as
            deployed.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    unknown = sorted(user_config.keys() - set(KEYS))
    if unknown:
        raise ConfigError(f"user_config.{unknown[0]}: unknown; it takes {', '.join(KEYS)}")
    values = settings.model_dump(mode="json", include={*ServiceSettings.model_fields})
    for key, value in user_config.items():
        if key == "token_budget":
            values["engine"][key] = value
        elif key == "limits":
            if not isinstance(value, Mapping):
                raise ConfigError(f"user_config.limits={value!r}: write keys of serve.limits")
            values["serve"][key] |= value
        else:
            values["serve"][key] = value
    return check(ServiceSettings, values)


async def apply(
    service: Service, settings: ServiceSettings, user_config: Mapping[str, Any]
) -> None:
    """Make a running service use a `user_config`, without a failed request.

    A `user_config` that can't be used changes no setting; it is logged as an error, and /info and
    the metric `finsent_user_config_refused` show it until another one is given. Only a model that
    is there and can't be loaded is tried again, as after a promotion.

    Args:
        settings: that the service was deployed with.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
        InputError: a model can't be used.
    """
    try:
        new = changed(settings, user_config)
        for reference in (new.serve.model, new.serve.shadow):
            if reference is not None:
                await asyncio.to_thread(service.registry.get, reference)
        await asyncio.to_thread(check_calibrations, service.registry, new.serve)
        service.apply(new.serve, new.engine)
        await service.follow(new.serve.model)
    except (ConfigError, InputError) as error:
        service.refused_config = str(error)
        log.error("user_config is refused: %s", error)
        raise
    service.refused_config = None
