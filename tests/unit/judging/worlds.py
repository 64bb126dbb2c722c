"""Storage roots with a dataset version and measured runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finsent.inference.config import EngineConfig
from finsent.labels import LABELS
from finsent.registry.config import PublishConfig
from finsent.registry.registry import Registry
from finsent.storage import StorageConfig
from ray_jobs import publish
from ray_jobs._cli import Call
from ray_jobs._results import as_result
from ray_jobs._settings import JobSettings
from tests.unit.dataset_versions import Row

WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}
NAMES = {"good": 0.0, "poor": 0.9}  # share of negative training rows that are labeled as neutral


def noisy_rows(count: int, split: str, seed: int) -> list[Row]:
    """Return rows. One in eight has another label than its words."""
    random = np.random.default_rng(seed)
    meanings = random.integers(0, 3, count)
    label = np.where(random.random(count) < 1 / 8, random.integers(0, 3, count), meanings)
    texts = (
        f"Unit {split} {i}: {WORDS[LABELS[s]]}{' today' * (i % 5)}" for i, s in enumerate(meanings)
    )
    return [Row(text, LABELS[i], split) for text, i in zip(texts, label, strict=True)]


@dataclass(frozen=True)
class World:
    """A storage root with a dataset version and two measured runs."""

    root: Path

    def settings(self, **sections: Any) -> JobSettings:
        return JobSettings(
            storage=StorageConfig(root=str(self.root)), engine=EngineConfig(threads=1), **sections
        )

    def run(self, name: str) -> Path:
        return self.root / "runs" / name

    def registry(self) -> Registry:
        return Registry(self.root / "registry")

    def publish(self, name: str, **settings: Any) -> dict[str, Any]:
        config = self.settings(publish=PublishConfig(model=name, **settings))
        return as_result(publish.run(Call(config, self.root / "runs" / f"publish-{name}")))


def metrics(world: World, name: str) -> dict[str, Any]:
    result = json.loads((world.run(name) / "evaluation" / "metrics.json").read_text())
    assert isinstance(result, dict)
    return result


def clean_rows(split: str, *labels: str) -> list[Row]:
    """Rows that every model has right which takes the label for what it is."""
    return [
        Row(f"Item {split} {i}: {WORDS[label]}", label, split) for i, label in enumerate(labels)
    ]
