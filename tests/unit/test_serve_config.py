"""The config for Ray Serve's own commands: it ignores keys that it does not know, so we look."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from finsent.config import load
from finsent.errors import ConfigError
from ray_jobs._settings import JobSettings
from serve_app.deployments.gateway import Gateway
from serve_app.graph import app
from tests.unit.config_problems import SERVE


def names(value: Any, path: str = "") -> set[str]:
    """All keys of nested mappings; a list's entries share a path."""
    if isinstance(value, dict):
        return {f"{path}.{key}" for key in value} | {
            name for key, inner in value.items() for name in names(inner, f"{path}.{key}")
        }
    if isinstance(value, list):
        return {name for inner in value for name in names(inner, path)}
    return set()


def test_the_config_has_only_keys_of_serve_and_of_finsent() -> None:
    written = yaml.safe_load(SERVE.read_text(encoding="utf-8"))
    parsed = ServeDeploySchema.model_validate(written).model_dump(warnings=False)
    assert names(written) <= names(parsed)
    [application] = written["applications"]
    arguments = [f"{key}={value}" for key, value in application["args"].items()]
    assert load(JobSettings, [], arguments).serve.model == "champion"
    [gateway] = application["deployments"]
    assert gateway["name"] == "Gateway"
    assert gateway["user_config"].keys() == {"model"}


def test_arguments_mean_what_yaml_says(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    args = {"storage.root": str(tmp_path), "serve.shadow": None, "serve.record": True}
    built = app({**args, "serve.cors_origins": ["https://desk.example"]})
    [data] = built._bound_deployment.init_args
    settings = json.loads(data)
    assert settings["serve"]["shadow"] is None
    assert settings["serve"]["record"] is True
    assert settings["serve"]["cors_origins"] == ["https://desk.example"]


def test_the_autoscaling_settings_are_not_deprecated(tmp_path: Path) -> None:
    """Ray warns that it will refuse some settings of autoscaling later."""
    (tmp_path / "registry").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        built = app(
            {"storage.root": str(tmp_path), "serve.max_replicas": 2, "serve.shadow": "challenger"}
        )
    scaling = built._bound_deployment._deployment_config.autoscaling_config
    assert scaling.max_replicas == 2


def test_metrics_that_show_a_state_are_refreshed_without_autoscaling() -> None:
    refreshed = []
    replica = SimpleNamespace(
        _service=SimpleNamespace(models=SimpleNamespace(ready=True)),
        _metrics=SimpleNamespace(refresh=lambda: refreshed.append(1)),
    )
    asyncio.run(Gateway.check_health(replica))  # type: ignore[arg-type]
    assert refreshed


def test_a_missing_registry_and_unknown_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"registry\.root=.*no registry there"):
        app({"storage.root": "/nowhere/at/all"})
    with pytest.raises(ConfigError, match=r"serve\.modle"):
        app({"serve.modle": "champion"})


def test_http_and_grpc_cannot_share_a_port() -> None:
    with pytest.raises(
        ConfigError, match=r"^serve.*grpc_port=8123: HTTP has this port\. .*0 for a free port"
    ):
        load(JobSettings, [], ["serve.port=8123", "serve.grpc_port=8123"])
    free = load(JobSettings, [], ["serve.port=0", "serve.grpc_port=0"]).serve
    assert (free.port, free.grpc_port) == (0, 0)
