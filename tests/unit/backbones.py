"""Backbones from elsewhere, and their refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finsent.errors import InputError
from finsent.modeling.backbone import Backbone, resolve_backbone
from finsent.modeling.classifier import inspect_backbone
from finsent.modeling.config import ModelConfig


def backbone_of(folder: Path) -> Backbone:
    """Return the backbone of a directory."""
    return resolve_backbone(ModelConfig(backbone=str(folder)), folder.parent)


def refusal(folder: Path, max_length: int = 128) -> str:
    """Return the error line of a backbone that is refused."""
    with pytest.raises(InputError) as caught:
        inspect_backbone(backbone_of(folder), max_length)
    text = str(caught.value)
    assert "\n" not in text
    return text


def same(model: Any, other: Any, key: str) -> bool:
    """Return whether two models have the same tensor under a key."""
    return torch.equal(model.state_dict()[key], other.state_dict()[key])


QUERY = "bert.encoder.layer.0.attention.self.query.weight"
