"""What the other front ends need, and what they cannot do."""

from __future__ import annotations

from typing import Any

from finsent.errors import InputError
from finsent.extras import require
from finsent.training.config import TrainConfig

_NEEDS = {"transformers": "accelerate", "lightning": "lightning"}
_ONLY: dict[str, Any] = {  # settings that the native loop alone honors, and what else they may be
    "accumulation_steps": 1,
    "unfreeze_epochs": 0.0,
    "compile": False,
}


def check(config: TrainConfig) -> None:
    """Fail early, and say what to change.

    Raises:
        InputError: the package is not installed, or the recipe asks for what it cannot do.
    """
    if config.trainer == "native":
        return
    package = _NEEDS[config.trainer]
    require(package, f"train.trainer={config.trainer!r}")
    asked: dict[str, tuple[Any, Any]] = {
        name: (getattr(config, name), plain)
        for name, plain in _ONLY.items()
        if getattr(config, name) != plain
    }
    if config.precision == "fp16":
        asked["precision"] = ("fp16", "bf16")
    if config.min_workers != config.max_workers:
        asked["num_workers"] = ([*_pair(config)], config.max_workers)
    if asked:
        name, (value, plain) = next(iter(asked.items()))
        raise InputError(
            f"train.{name}={value}: train.trainer={config.trainer!r} cannot; set train.{name}="
            f"{str(plain).lower()}, or train.trainer=native"
        )


def _pair(config: TrainConfig) -> tuple[int, int]:
    return config.min_workers, config.max_workers
