"""Load a model for programs and notebooks."""

from __future__ import annotations

from pathlib import Path

from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.registry.model_handle import Model
from finsent.workspace import Workspace


def load(
    model: str = "alias:champion",
    root: Path | str = "artifacts",
    config: EngineConfig | None = None,
) -> Engine:
    """Load a published or trained model.

    Args:
        model: `alias:NAME`, `version:ID`, `run:NAME`, `latest`, or a directory.
        root: directory of the registry and the runs, as `storage.root` names it.
        config: backend, precision and threads; None: the defaults.

    Raises:
        InputError: the model does not exist or is damaged, or a bare name matches two models.
    """
    return Engine(Model.find(model, Workspace.at(root), "model").folder, config or EngineConfig())
