"""What to train: the same on every worker, whoever starts the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finsent.data.dataset import DatasetVersion
from finsent.modeling.backbone import Backbone
from finsent.modeling.config import ModelConfig
from finsent.training.config import TrainConfig

_ORIGIN = ("source", "bytes", "sha256", "rows")  # not where a file lay on some machine


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
    def tokenising(self) -> dict[str, Any]:
        """Arguments of `finsent.training.tokens.tokenise`."""
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
        config = config.model_copy(update={"learning_rate": backbone.learning_rate})
    manifest = version.manifest
    provenance = {
        "backbone": model.backbone,
        "revision": model.revision,
        "max_length": model.max_length,
        "labels": manifest["labels"],
        "dataset": {
            "name": manifest["name"],
            "version": manifest["version"],
            "rows": manifest["counts"]["kept"],
            "inputs": [{key: file[key] for key in _ORIGIN} for file in manifest["inputs"]],
        },
        "config": config.model_dump(mode="json", exclude={"dataset"}),
    }
    return Task(config, backbone, provenance)
