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
        f"| {name} | {_shown(found, 'macro_f1')} | {_shown(found, 'accuracy')} "
        f"| {_shown(found, 'mcc')} | {_shown(found, 'auroc')} | {_shown(found, 'ece')} |"
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
        "In brackets: 95 % bootstrap intervals.",
        "",
        "| | macro-F1 | accuracy | MCC | AUROC | ECE |",
        "|---|---|---|---|---|---|",
        *compared,
        "",
        "| label | precision | recall | F1 | rows |",
        "|---|---|---|---|---|",
        *rows,
        "",
        *_trust(metrics),
        "## Limits",
        "English only; one label a text, so mixed news is reduced to its main direction. Figures "
        "hold for text like the test split's. Not investment advice.",
    ]
    return "\n".join(lines) + "\n"


def _shown(found: dict[str, Any], name: str) -> str:
    """A figure with its interval, as far as they are there."""
    if found.get(name) is None:
        return "-"
    interval = found.get("intervals", {}).get(name)
    bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{found[name]:.3f}{bounds}"


def _trust(metrics: dict[str, Any]) -> list[str]:
    """What its confidence means, when it abstains, and what the labels allow."""
    scaled, rule = metrics.get("calibration"), metrics.get("abstention")
    if not scaled or not rule:
        return []
    lines = [
        "## Confidence",
        f"Logits are divided by the temperature {scaled['temperature']:.3f} "
        "(`calibration.json`, fitted on the validation split). Expected calibration error on the "
        f"test split: {_shown({'ece': scaled['ece_before']}, 'ece')} without it, "
        f"{_shown({'ece': scaled['ece_after']}, 'ece')} with it.",
        "",
    ]
    if rule["threshold"] is None:
        lines.append(f"It never abstains: {rule['reason']}.")
    else:
        lines.append(
            f"It abstains below a confidence of {rule['threshold']:.3f}, chosen for an accuracy of "
            f"{rule['wanted_accuracy']:g} on the validation split. On the test split it then "
            f"answers {rule['coverage']:.1%} of the rows, with an accuracy of "
            f"{_shown(rule, 'accuracy')}."
        )
    ceiling = metrics.get("noise_ceiling")
    if ceiling and ceiling["rows_in"] < 1:
        lines += [
            "",
            "The labels contradict each other: no classifier can exceed an accuracy of "
            f"{ceiling['kept']:.3f} on the rows that were kept, {ceiling['rows_in']:.3f} on all "
            "that were read.",
        ]
    return [*lines, ""]
