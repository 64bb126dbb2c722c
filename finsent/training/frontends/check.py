"""Packages that the other front ends need, and settings that they do not support."""

from __future__ import annotations

from typing import Any

from finsent.errors import InputError
from finsent.extras import require
from finsent.training.config import TrainConfig

_PACKAGES = {"transformers": "accelerate", "lightning": "lightning"}
# Settings that only the native loop supports, with the value that the other front ends accept.
_NATIVE_ONLY: dict[str, int | float | bool] = {
    "accumulation_steps": 1,
    "unfreeze_epochs": 0.0,
    "compile": False,
}


def check_trainer(config: TrainConfig) -> None:
    """Check that the front end `train.trainer` is installed and supports the recipe.

    Raises:
        InputError: the package is missing, or the front end does not support a setting.
    """
    if config.trainer == "native":
        return
    package = _PACKAGES[config.trainer]
    require(package, f"train.trainer={config.trainer!r}")
    unsupported = _unsupported(config)
    if unsupported:
        name, (value, accepted) = next(iter(unsupported.items()))
        raise InputError(
            f"train.{name}={value}: train.trainer={config.trainer!r} does not support it. Set "
            f"train.{name}={str(accepted).lower()}, or train.trainer=native."
        )


def _unsupported(config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return the values of unsupported settings, each with the accepted one."""
    values: dict[str, tuple[Any, Any]] = {
        name: (getattr(config, name), accepted)
        for name, accepted in _NATIVE_ONLY.items()
        if getattr(config, name) != accepted
    }
    if config.precision == "fp16":
        values["precision"] = ("fp16", "bf16")
    if config.min_workers != config.max_workers:
        values["num_workers"] = ([config.min_workers, config.max_workers], config.max_workers)
    return values
