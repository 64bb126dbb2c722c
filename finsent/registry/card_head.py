"""The YAML head of a model card, as model hubs read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def card_head(
    version: str, provenance: Mapping[str, Any], metrics: Mapping[str, Any], license: str | None
) -> str:
    """Return the lines between the two `---`, without a newline at the end.

    Args:
        metrics: of labeled rows; empty where the model was not measured.
        license: of the model; None: not stated.
    """
    from huggingface_hub import EvalResult, ModelCardData  # takes a moment to import

    origin, dataset = provenance.get("origin"), provenance.get("dataset") or {}
    base = provenance.get("base") or {}
    results = None
    if metrics and dataset and not origin:  # an adopted model is measured on other rows
        about = {
            "task_type": "text-classification",
            "dataset_type": dataset["name"],
            "dataset_name": dataset["name"],
            "dataset_revision": dataset["version"],
            "dataset_split": "test",
        }
        results = [
            EvalResult(metric_type=kind, metric_name=name, metric_value=metrics[key], **about)
            for key, kind, name in (
                ("accuracy", "accuracy", "accuracy"),
                ("macro_f1", "f1", "macro-F1"),
            )
        ]
    hubs = {file.get("hub_id") for file in dataset.get("inputs") or []} - {None}
    head = ModelCardData(
        language=None if origin else "en",
        license=(origin and origin["license"]) or license,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["finance", "sentiment", "finsent"],
        base_model=base.get("hub_id"),
        datasets=sorted(hubs) or None,
        metrics=["accuracy", "f1"],
        model_name=f"finsent-{version}",
        eval_results=results,
    )
    return head.to_yaml().strip()
