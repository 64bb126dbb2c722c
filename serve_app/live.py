"""What Serve's `user_config` changes while the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finsent.config import check
from finsent.errors import ConfigError
from finsent.settings import Settings

KEYS = ("model", "shadow", "shadow_share", "limits", "token_budget")


def changed(settings: Settings, user_config: Mapping[str, Any]) -> Settings:
    """The settings that a service was deployed with, with what `user_config` says instead.

    Args:
        user_config: `model`, `shadow`, `shadow_share` and any of `limits` as in section `serve`,
            `token_budget` as in section `engine`. What it leaves out is as deployed.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    unknown = sorted(user_config.keys() - set(KEYS))
    if unknown:
        raise ConfigError(f"user_config.{unknown[0]}: unknown; it takes {', '.join(KEYS)}")
    values = settings.model_dump(mode="json")
    for key, value in user_config.items():
        if key == "token_budget":
            values["engine"][key] = value
        elif key == "limits":
            if not isinstance(value, Mapping):
                raise ConfigError(f"user_config.limits={value!r}: write keys of serve.limits")
            values["serve"][key] |= value
        else:
            values["serve"][key] = value
    return check(Settings, values)
