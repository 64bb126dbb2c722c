"""Small models whose answers differ between texts, for tests of the users of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedModel

from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.inference.config import EngineConfig
from finsent.labels import LABELS
from finsent.metrics_record import StoredMetrics
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_tokenizer, new_classifier, save_classifier
from finsent.modeling.domain_calibration import DomainCalibration, DomainContent
from finsent.modeling.domain_record import DomainMetrics, Figure
from finsent.modeling.provenance import Provenance
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry

MAX_LENGTH = 48
METRICS = StoredMetrics(rows=1, macro_f1=1.0, accuracy=1.0, ece=0.1, labels={})
TEXTS = [
    "Profit rose.",
    "Harrow & Finch cut its outlook after a weak spring, and the shares fell 8 %.",
    "The meeting is on 4 May.",
    "Zürich-based Albis earned CHF 5½ mn — twice last year's figure",
    "order " * 30,
    "Up",
    "The bond matures in 2031 and pays 4.25 percent, twice a year, to holders of record.",
]


def opinionated(tiny: Path, seed: int = 3) -> PreTrainedModel:
    """Return a classifier whose answers differ between texts, so that mixing them up is noticed."""
    model = new_classifier(Backbone("tiny", str(tiny)), seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(20)
    return model


def saved_model(tiny: Path, out: Path, seed: int = 3, **provenance: Any) -> Path:
    """Return the directory of such a classifier, as training writes it."""
    record = Provenance(max_length=MAX_LENGTH, backbone="tiny", **provenance)
    save_classifier(opinionated(tiny, seed), load_tokenizer(str(tiny)), out, record)
    return out


def published(
    tiny: Path, folder: Path, engine: EngineConfig, aliases: Sequence[str] = ("champion",)
) -> Registry:
    """Return a registry with an exported version per alias; ONNX Runtime loads fast."""
    registry = Registry(folder / "registry")
    rows = pa.table({"text": TEXTS, "label": ["neutral"] * len(TEXTS)})
    for seed, alias in enumerate(aliases, start=3):
        model = saved_model(tiny, folder / f"model-{seed}", seed)
        export_model(model, rows, ExportConfig(openvino=False), engine, {})
        registry.promote(registry.publish(model, METRICS, {}).version, alias)
    return registry


def domain_content(**changes: Any) -> DomainContent:
    """Return the content of a calibration for a domain."""
    figure = Figure(value=0.5, interval=(0.4, 0.6))
    measured = DomainMetrics(
        macro_f1=figure, accuracy=figure, log_loss=figure, ece=figure, coverage=0.5, answered=figure
    )
    values: dict[str, Any] = {
        "name": "tweets",
        "model_version": "0123456789ab",
        "temperature": 2.0,
        "biases": {"negative": -0.2, "neutral": 1.3, "positive": -1.1},
        "threshold": 0.8,
        "threshold_reason": None,
        "wanted_accuracy": 0.9,
        "sources": ("tweets.csv",),
        "rows": 3,
        "texts": 3,
        "rows_by_label": dict.fromkeys(LABELS, 1),
        "rows_digest": "d",
        "keys": ("a", "b", "c"),
        "folds": 10,
        "before": measured,
        "after": measured,
        "log_loss_difference": figure,
        "fitted_with": "torch-fp32",
        "exports": {},
        "refusal": None,
    }
    return DomainContent(**values | changes)


def publish_domain(registry: Registry, **changes: Any) -> DomainCalibration:
    """Publish a calibration of the champion for a domain, and return it."""
    version = registry.get("champion").version
    content = domain_content(model_version=version, **changes)
    return Calibrations(registry.root, version).publish(DomainCalibration.of(content))
