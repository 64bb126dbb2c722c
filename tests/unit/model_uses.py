"""What `adopt` and `train` log or raise for a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finsent.adoption.adopt import adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.errors import InputError
from finsent.modeling.backbone import resolve_backbone
from finsent.modeling.classifier import (
    inspect_backbone,
)
from finsent.modeling.config import ModelConfig
from finsent.modeling.model_folder import find_model_folder


def refusals(folder: Path) -> list[str]:
    """Return the errors of `adopt` and of a training for a directory that both refuse."""
    messages = []
    for use in (adopt_it, train_it):
        with pytest.raises(InputError) as caught:
            use(folder)
        messages.append(str(caught.value))
        assert "\n" not in messages[-1]
    assert messages[0].startswith(f"SOURCE={str(folder)!r}: ")
    assert messages[1].startswith(f"model.backbone={str(folder)!r}: ")
    return [text.partition(f"{str(folder)!r}: ")[2] for text in messages]


def adopt_it(folder: Path, revision: str | None = None, **config: Any) -> list[str]:
    """Adopt a model, and return the log lines."""
    model_folder = find_model_folder(str(folder), revision, "SOURCE", "")
    return adopt(
        open_foreign(str(folder), model_folder, AdoptConfig(license="mit", **config)),
        folder.parent / "adopted",
    )


def train_it(folder: Path, revision: str | None = None) -> list[str]:
    """Return the log lines before a training."""
    config = ModelConfig(backbone=str(folder), revision=revision)
    return inspect_backbone(resolve_backbone(config, folder.parent), 64)
