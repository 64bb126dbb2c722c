"""The task of a training: the same on every worker, under Ray, torchrun, or alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypedDict

from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.manifest import InputSource
from finsent.modeling.backbone import Backbone
from finsent.modeling.config import ModelConfig
from finsent.modeling.provenance import backbone_origin
from finsent.training.config import TrainConfig

_ORIGIN = ("source", "bytes", "sha256", "rows")  # without the path, which differs by machine
_RULES = ("split", "salt", "near_duplicates", "conflicts")  # settings that decide the splits


class TokenizerArguments(TypedDict):
    """Arguments of `finsent.training.tokens.tokenize`."""

    source: str
    revision: str | None
    max_length: int


@dataclass(frozen=True)
class Task:
    """A recipe, the backbone to start from, and the provenance to save with the model."""

    config: TrainConfig
    backbone: Backbone
    provenance: dict[str, Any]  # JSON-able; has `max_length` in tokens, which inference needs

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return int(self.provenance["max_length"])

    @property
    def tokenizer_arguments(self) -> TokenizerArguments:
        """Arguments of `finsent.training.tokens.tokenize`."""
        return TokenizerArguments(
            source=self.backbone.source,
            revision=self.backbone.revision,
            max_length=self.max_length,
        )


def make_task(
    config: TrainConfig, model: ModelConfig, backbone: Backbone, version: DatasetVersion
) -> Task:
    """Make a task whose provenance leads from the model back to the sources' digests."""
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
    """Return a source's entry in a model's provenance.

    Returns:
        Name and digest, `license` (null: not stated) and `hub_id` (null: not from Hugging Face).
    """
    hub = re.fullmatch(r"hf://([\w.-]+/[\w.-]+).*", file.uri, re.ASCII)
    origin = file.model_dump(include={*_ORIGIN})
    return {**origin, "license": file.license, "hub_id": hub and hub[1]}
