"""The task of a training: the same on every worker, under Ray, torchrun, or alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

from finsent.data.versions.dataset import DatasetVersion
from finsent.data.versions.manifest import InputSource
from finsent.modeling.backbone import Backbone
from finsent.modeling.config import ModelConfig
from finsent.modeling.provenance import DatasetOrigin, DatasetSource, Provenance, backbone_origin
from finsent.training.config import TrainConfig

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
    provenance: Provenance

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.provenance.max_length

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
    provenance = Provenance(
        backbone=model.backbone,
        revision=model.revision,
        max_length=model.max_length,
        labels=tuple(manifest.labels),
        base=backbone_origin(backbone),
        dataset=DatasetOrigin(
            name=manifest.name,
            version=manifest.version,
            rows=manifest.counts.kept,
            inputs=tuple(map(_source, manifest.inputs)),
            splits={name: split.rows for name, split in manifest.splits.items()},
            rules={key: manifest.config[key] for key in _RULES},
        ),
        config=config.model_dump(mode="json", exclude={"dataset"}),
    )
    return Task(config, backbone, provenance)


def _source(file: InputSource) -> DatasetSource:
    """Return a source's entry in a model's provenance; its path differs by machine."""
    hub = re.fullmatch(r"hf://([\w.-]+/[\w.-]+).*", file.uri, re.ASCII)
    return DatasetSource(
        source=file.source,
        bytes=file.bytes,
        sha256=file.sha256,
        rows=file.rows,
        license=file.license,
        hub_id=hub[1] if hub else None,
    )
