"""The config for Ray Serve's own commands: it ignores keys that it does not know, so we look."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from finsent.config import load
from finsent.errors import ConfigError
from finsent.settings import Settings
from serve_app.graph import app
from tests.unit.test_config import SERVE


def names(value: Any, path: str = "") -> set[str]:
    """All keys of nested mappings; a list's entries share a path."""
    if isinstance(value, dict):
        return {f"{path}.{key}" for key in value} | {
            name for key, inner in value.items() for name in names(inner, f"{path}.{key}")
        }
    if isinstance(value, list):
        return {name for inner in value for name in names(inner, path)}
    return set()


def test_serve_knows_every_key_and_we_know_every_argument() -> None:
    written = yaml.safe_load(SERVE.read_text(encoding="utf-8"))
    parsed = ServeDeploySchema.model_validate(written).model_dump(warnings=False)
    assert names(written) <= names(parsed)
    [application] = written["applications"]
    arguments = [f"{key}={value}" for key, value in application["args"].items()]
    assert load(Settings, [], arguments).serve.model == "champion"
    [gateway] = application["deployments"]
    assert gateway["name"] == "Gateway"
    assert gateway["user_config"].keys() == {"model"}


def test_builder_refuses_what_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"registry\.root=.*no registry there"):
        app({"storage.root": "/nowhere/at/all"})
    with pytest.raises(ConfigError, match=r"serve\.modle"):
        app({"serve.modle": "champion"})
