"""The model card of a version (Mitchell et al., arXiv:1810.03993), in the hub's format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finsent.estimates import Estimate
from finsent.labels import LABELS
from finsent.registry.card_head import card_head
from finsent.registry.gate import Gate
from finsent.registry.making import (
    base_section,
    cell,
    code_section,
    data_section,
    files_section,
)

_LIMITS = (
    "English only; one label a text, so mixed news is reduced to its main direction. Figures hold "
    "for text like the test split's. Not investment advice."
)
_LIMITS_ADOPTED = (
    "Trained elsewhere: its training texts are not recorded here, and rows that it is measured on "
    "may be among them. Not investment advice."
)
_LIMITS_KNOWN = (
    "Trained on the dataset version above before it was adopted; rows that it is measured on may "
    "be among those. Not investment advice."
)


def model_card(
    version: str,
    provenance: dict[str, Any],
    metrics: dict[str, Any],
    files: Sequence[dict[str, Any]] = (),
    code: dict[str, Any] | None = None,
    license: str | None = None,
    elsewhere: Sequence[str] = (),
    gate: Gate | None = None,
) -> str:
    """Return Markdown with the YAML head that model hubs read. Depends on its arguments alone.

    Args:
        metrics: of the test split, or of the rows that an adopted model was measured on; empty
            where an adopted model was not measured.
        files: of the version's manifest, with their digests.
        code: commit and package versions.
        license: of the model; None: that of an adopted model's source, or not stated.
        elsewhere: lines on how to run the directory without finsent.
        gate: what the version passed to become champion; None: nothing was compared.
    """
    origin = provenance.get("origin")
    lines = [
        "---",
        card_head(version, provenance, metrics, license),
        "---",
        f"# Financial sentiment {version}",
        "",
        *(_adopted(provenance, origin) if origin else _trained(provenance, license)),
        *_results(metrics, bool(origin)),
        *_trust(metrics, "other labeled rows" if origin else "the validation split"),
        *files_section(files),
        *code_section(provenance, code or {}),
        *elsewhere,
        *(_compared(gate) if gate else []),
        "## Limits",
        _limits(provenance),
    ]
    return "\n".join(lines) + "\n"


def _limits(provenance: dict[str, Any]) -> str:
    if not provenance.get("origin"):
        return _LIMITS
    return _LIMITS_KNOWN if provenance.get("dataset") else _LIMITS_ADOPTED


def _trained(provenance: dict[str, Any], license: str | None) -> list[str]:
    return [
        f"Classifies English financial text as {', '.join(LABELS)}, from an investor's point of "
        f"view. Fine-tuned from `{cell(provenance.get('backbone'))}`, inputs of at most "
        f"{provenance.get('max_length')} tokens. License: {license or 'not stated'}.",
        "",
        *data_section(provenance.get("dataset") or {}),
        *base_section(provenance),
    ]


def _adopted(provenance: dict[str, Any], origin: dict[str, Any]) -> list[str]:
    revision = f", revision `{origin['revision']}`" if origin["revision"] else ""
    absent = origin["absent_labels"]
    never = f" It never answers {' or '.join(absent)}." if absent else ""
    return [
        f"Classifies text as {', '.join(LABELS)}. Adopted from `{origin['source']}`{revision} "
        f"({origin['architecture']}), inputs of at most {provenance.get('max_length')} tokens."
        f"{never}",
        "",
        "## Origin",
        f"License: {origin['license'] or 'unknown'}.",
        "",
        "| label of the source | label |",
        "|---|---|",
        *(f"| `{cell(name)}` | {label} |" for name, label in origin["label_map"].items()),
        "",
        "| file of the source | SHA-256 |",
        "|---|---|",
        *(f"| {cell(file['path'])} | {file['sha256']} |" for file in origin["files"]),
        "",
        *(data_section(dataset) if (dataset := provenance.get("dataset")) else []),
    ]


def _results(metrics: dict[str, Any], is_adopted: bool) -> list[str]:
    if not metrics:
        return ["## Results", "Not measured when it was published.", ""]
    rows = [
        f"| {label} | {_shown(found, 'precision')} | {_shown(found, 'recall')} "
        f"| {_shown(found, 'f1')} | {found['support']} |"
        for label, found in metrics["labels"].items()
    ]
    compared = [
        f"| {name} | {_shown(found, 'macro_f1')} | {_shown(found, 'accuracy')} "
        f"| {_shown(found, 'mcc')} | {_shown(found, 'auroc')} | {_shown(found, 'ece')} |"
        for name, found in {"this model": metrics, **metrics.get("baselines", {})}.items()
    ]
    split = "labeled rows that it was not calibrated on" if is_adopted else "the test split"
    return [
        f"## Results on {split} ({metrics['rows']} rows)",
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
    ]


def _compared(gate: Gate) -> list[str]:
    """Say how the version compares with the champion that it replaced."""
    rows = [
        f"| {split.split_of} (`{split.dataset_version}`) | {split.judgment.rows} "
        f"| {_change(split.judgment.macro_f1)} | {_change(split.judgment.accuracy)} "
        f"| {split.judgment.outcome} |"
        for split in gate.splits
    ]
    forced = " It was published by force." if gate.forced else ""
    weakened = " and ".join(gate.weakened)
    weak = f" Judged by rules weaker than the defaults: {weakened}." if weakened else ""
    return [
        f"## Compared with the champion before (`{gate.against}`)",
        f"Outcome: {gate.outcome}, at a margin of {gate.margin:g} and with at least "
        f"{gate.min_rows} rows.{weak}{forced} In brackets: with 95 % "
        "confidence the difference is at least that.",
        "",
        "| test split of | rows | macro-F1 | accuracy | |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def _change(difference: Estimate | None) -> str:
    return "-" if difference is None else f"{difference.value:+.3f} ({difference.bound:+.3f})"


def _shown(found: dict[str, Any], name: str) -> str:
    """A figure with its interval, as far as they are there."""
    if found.get(name) is None:
        return "-"
    interval = found.get("intervals", {}).get(name)
    bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{found[name]:.3f}{bounds}"


def _trust(metrics: dict[str, Any], fitted_on: str) -> list[str]:
    """Say what the confidence means, when the model abstains, and what the labels allow.

    Args:
        fitted_on: the rows of the calibration, in words.
    """
    scaled, rule = metrics.get("calibration"), metrics.get("abstention")
    if not scaled or not rule or not scaled.get("fitted_on"):
        return []
    lines = [
        "## Confidence",
        f"Calibrated by the temperature {scaled['temperature']:.3f} "
        f"(`calibration.json`, fitted on {fitted_on}). Expected calibration error on the "
        f"rows above: {_shown({'ece': scaled['ece_before']}, 'ece')} without it, "
        f"{_shown({'ece': scaled['ece_after']}, 'ece')} with it.",
        "",
    ]
    if rule["threshold"] is None:
        lines.append(f"It never abstains: {rule['reason']}.")
    else:
        lines.append(
            f"It abstains below a confidence of {rule['threshold']:.3f}, chosen for an accuracy of "
            f"{rule['wanted_accuracy']:g} on {fitted_on}. On the rows above it then "
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
