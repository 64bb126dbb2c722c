"""Versions for rollouts: one that equals the champion, and worse ones."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.inference.config import EngineConfig
from finsent.modeling.classifier import load_tokenizer, save_classifier
from finsent.modeling.provenance import Provenance
from finsent.registry.registry import Registry
from finsent.rollout.rollout_record import RolloutRules
from tests.unit.models import MAX_LENGTH, METRICS, TEXTS, opinionated, saved_model

ENGINE = EngineConfig(precision="fp32", threads=1)
RULES = RolloutRules(
    shares=(0.2, 0.5, 1.0),
    margin=0.1,
    allowed_disagreement=0.1,
    alpha=0.05,
    slow_factor=5.0,  # requests of a test take milliseconds, and other tests run, too
    compare_share=0.1,
)


def published_pair(tiny: Path, folder: Path) -> Registry:
    """Return a new registry with two versions, `champion` and `challenger`."""
    registry = Registry(folder / "registry")
    for seed, alias in ((3, "champion"), (4, "challenger")):
        model = saved_model(tiny, folder / alias, seed)
        registry.promote(registry.publish(model, METRICS, {}).version, alias)
    return registry


def publish(
    tiny: Path, registry: Registry, folder: Path, seed: int, note: str, max_length: int = MAX_LENGTH
) -> str:
    """Publish a version, and return its id.

    Args:
        seed: of the weights; the same seed gives the same answers.
        note: makes it another version.
        max_length: tokens per text; longer texts with truncate=error get a problem.
    """
    model = folder / note
    provenance = Provenance(max_length=max_length, backbone="tiny", config={"note": note})
    save_classifier(opinionated(tiny, seed), load_tokenizer(str(tiny)), model, provenance)
    rows = pa.table({"text": TEXTS, "label": ["neutral"] * len(TEXTS)})
    export_model(model, rows, ExportConfig(openvino=False), ENGINE, {})
    return registry.publish(model, METRICS, {}).version
