"""A registry, and a function that publishes a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finsent.registry.model_version import ModelVersion
from finsent.registry.registry import Registry
from tests.unit.registry.model_dirs import CODE, METRICS, model_dir


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Return an empty registry."""
    return Registry(tmp_path / "registry")


@pytest.fixture
def publish(tmp_path: Path, registry: Registry) -> Callable[[int], ModelVersion]:
    """Return a function that publishes the model of a seed."""

    def publish_seed(seed: int = 0) -> ModelVersion:
        folder = tmp_path / f"model-{seed}"
        if not folder.is_dir():
            model_dir(folder, seed)
        return registry.publish(folder, METRICS, CODE)

    return publish_seed
