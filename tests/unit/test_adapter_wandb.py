"""The private settings and options of W&B that `finsent.adapters.wandb` uses are there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import wandb as library

from finsent.adapters import wandb, wandb_environment

CHANGED = "W&B has changed; adapt finsent/adapters/wandb.py: "


@pytest.mark.parametrize("name", [*wandb.SETTINGS, "init_timeout"])
def test_settings(name: str) -> None:
    assert name in library.Settings.model_fields, CHANGED + f"no setting {name}"


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (library.init, ["id", "resume", "reinit", "dir", "config", "mode", "settings"]),
        (library.Artifact.add_file, ["local_path", "name", "policy", "skip_cache"]),
        (library.Html.__init__, ["inject", "data_is_not_path"]),
        (library.Table.__init__, ["columns", "data"]),
    ],
    ids=["init", "Artifact.add_file", "Html", "Table"],
)
def test_arguments(function: Callable[..., Any], names: list[str]) -> None:
    parameters = inspect.signature(function).parameters
    missing = [name for name in names if name not in parameters]
    assert not missing, CHANGED + f"{function.__qualname__} has no argument {missing}"


@pytest.mark.parametrize("variable", wandb_environment.FOLDER_VARIABLES)
def test_folders(variable: str) -> None:
    """A setting of W&B or a function reads each variable."""
    from wandb import env

    names = {value for value in vars(env).values() if isinstance(value, str)}
    settings = {f"WANDB_{name}".upper() for name in library.Settings.model_fields}
    assert variable in names | settings, CHANGED + f"{variable} is not read"
