"""What to train: the same on every worker, whoever starts the workers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.manifest import InputSource
from finsent.modeling.backbone import Backbone
from finsent.modeling.config import ModelConfig
from finsent.modeling.provenance import backbone_origin
from finsent.training.config import TrainConfig

_ORIGIN = ("source", "bytes", "sha256", "rows")  # not where a file lay on some machine
_RULES = ("split", "salt", "near_duplicates", "conflicts")  # of the data, that decide the splits


@dataclass(frozen=True)
class Task:
    """A recipe, the encoder it starts from, and what is saved with the model."""

    config: TrainConfig
    backbone: Backbone
    provenance: dict[str, Any]  # JSON-able; holds max_length (tokens), which inference needs

    @property
    def max_length(self) -> int:
        """Longest input, tokens."""
        return int(self.provenance["max_length"])

    @property
    def tokenizing(self) -> dict[str, Any]:
        """Arguments of `finsent.training.tokens.tokenize`."""
        backbone = self.backbone
        return {
            "source": backbone.source,
            "revision": backbone.revision,
            "max_length": self.max_length,
        }


def make_task(
    config: TrainConfig, model: ModelConfig, backbone: Backbone, version: DatasetVersion
) -> Task:
    """Put a task together; its provenance leads from the model back to the sources' digests."""
    if config.learning_rate is None:
        config = config.replaced(learning_rate=backbone.learning_rate)
    manifest = version.manifest
    provenance = {
        "backbone": model.backbone,
        "revision": model.revision,
        "max_length": model.max_length,
        "labels": manifest.labels,
        "base": backbone_origin(backbone).model_dump(mode="json"),
        "dataset": {
            "name": manifest.name,
            "version": manifest.version,
            "rows": manifest.counts.kept,
            "inputs": [_input(file) for file in manifest.inputs],
            "splits": {name: split.rows for name, split in manifest.splits.items()},
            "rules": {key: manifest.config[key] for key in _RULES},
        },
        "config": config.model_dump(mode="json", exclude={"dataset"}),
    }
    return Task(config, backbone, provenance)


def _input(file: InputSource) -> dict[str, Any]:
    """What a model should say of a source.

    Returns:
        Name and digest, `license` (null: not stated) and `hub_id` (null: not from Hugging Face).
    """
    found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+).*", file.uri, re.ASCII)
    own = file.model_dump(include={*_ORIGIN})
    return {**own, "license": file.license, "hub_id": found and found[1]}
