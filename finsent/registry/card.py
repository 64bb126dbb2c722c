"""The model card of a version (Mitchell et al., arXiv:1810.03993), in the hub's format."""

from __future__ import annotations

from typing import Any

from finsent.labels import LABELS


def model_card(version: str, provenance: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Markdown with the YAML head that model hubs read. Depends on its arguments alone."""
    dataset = provenance.get("dataset") or {}
    rows = [
        f"| {label} | {found['precision']:.3f} | {found['recall']:.3f} | {found['f1']:.3f} "
        f"| {found['support']} |"
        for label, found in metrics["labels"].items()
    ]
    compared = [
        f"| {name} | {found['macro_f1']:.3f} | {found['accuracy']:.3f} |"
        for name, found in {"this model": metrics, **metrics.get("baselines", {})}.items()
    ]
    lines = [
        "---",
        "language: en",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "tags: [finance, sentiment, finsent]",
        "---",
        f"# Financial sentiment {version}",
        "",
        f"Classifies English financial text as {', '.join(LABELS)}, from an investor's point of "
        f"view. Fine-tuned from `{provenance.get('backbone')}`, inputs of at most "
        f"{provenance.get('max_length')} tokens.",
        "",
        "## Data",
        f"Dataset `{dataset.get('name')}`, version `{dataset.get('version')}`: "
        f"{dataset.get('rows')} distinct rows after cleaning. The split of a row depends on a hash "
        "of its text, so no text is on two sides.",
        "",
        f"## Results on the test split ({metrics['rows']} rows)",
        "| | macro-F1 | accuracy |",
        "|---|---|---|",
        *compared,
        "",
        "| label | precision | recall | F1 | rows |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "## Limits",
        "English only; one label a text, so mixed news is reduced to its main direction. Figures "
        "hold for text like the test split's. Not investment advice.",
    ]
    return "\n".join(lines) + "\n"
