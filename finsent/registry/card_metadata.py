"""The YAML metadata at the top of a model card, as model hubs read it."""

from __future__ import annotations

from finsent.metrics_record import StoredMetrics
from finsent.modeling.provenance import Provenance


def card_metadata(
    version: str, provenance: Provenance, metrics: StoredMetrics, license: str | None
) -> str:
    """Return the lines between the two `---`, without a final newline.

    Args:
        metrics: of labeled rows; without a key: the model was not measured.
        license: of the model; None: not stated.
    """
    # Loading and listing versions do without the hub's client.
    from huggingface_hub import EvalResult, ModelCardData

    origin, dataset, base = provenance.origin, provenance.dataset, provenance.base
    results = None
    if metrics.is_measured and dataset and not origin:  # an adopted model is measured on other rows
        results = [
            EvalResult(
                task_type="text-classification",
                dataset_type=dataset.name,
                dataset_name=dataset.name,
                dataset_revision=dataset.version,
                dataset_split="test",
                metric_type=kind,
                metric_name=name,
                metric_value=value,
            )
            for kind, name, value in (
                ("accuracy", "accuracy", metrics.accuracy),
                ("f1", "macro-F1", metrics.macro_f1),
            )
        ]
    inputs = (dataset.inputs if dataset else None) or ()
    hub_ids = {file.hub_id for file in inputs if file.hub_id is not None}
    metadata = ModelCardData(
        language=None if origin else "en",
        license=(origin.license if origin else None) or license,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["finance", "sentiment", "finsent"],
        base_model=base.hub_id if base else None,
        datasets=sorted(hub_ids) or None,
        metrics=["accuracy", "f1"],
        model_name=f"finsent-{version}",
        eval_results=results,
    )
    return metadata.to_yaml().strip()
