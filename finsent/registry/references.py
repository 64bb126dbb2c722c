"""The model's directory that a setting names."""

from __future__ import annotations

from pathlib import Path

from finsent.registry.model_handle import Model
from finsent.registry.registry import Registry
from finsent.workspace import Workspace


def find_any_model(reference: str, registry: Registry, runs_dir: Path, field: str) -> Path:
    """Return the directory of `Model.find`."""
    return Model.find(reference, Workspace(runs_dir.parent, registry.root), field).folder
