"""The model card of a version (Mitchell et al., arXiv:1810.03993), in the hub's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finsent.estimates import Estimate
from finsent.labels import LABELS
from finsent.metrics_record import Interval, Intervals, StoredMetrics, StoredScores
from finsent.modeling.provenance import AdoptedOrigin, Provenance
from finsent.registry.card_metadata import card_metadata
from finsent.registry.card_sections import (
    base_section,
    cell,
    code_section,
    data_section,
    files_section,
)
from finsent.registry.gate import Gate
from finsent.registry.version_manifest import VersionFile

_LIMITS = (
    "English only. One label per text: mixed news is reduced to its main direction. The figures "
    "hold for texts like those of the test split. Not investment advice."
)
_LIMITS_ADOPTED = (
    "Trained outside finsent: its training texts are not recorded, and may include rows that it "
    "is measured on. Not investment advice."
)
_LIMITS_ADOPTED_WITH_DATASET = (
    "Trained on the dataset version above before it was adopted. The training rows may include "
    "rows that it is measured on. Not investment advice."
)


def model_card(
    version: str,
    provenance: Provenance,
    metrics: StoredMetrics,
    files: Sequence[VersionFile] = (),
    code: Mapping[str, object] | None = None,
    license: str | None = None,
    usage: Sequence[str] = (),
    gate: Gate | None = None,
) -> str:
    """Return Markdown with the YAML metadata that model hubs read. Depends on its arguments alone.

    Args:
        metrics: of the test split, or of the labeled rows of an adopted model; without a key: an
            adopted model was not measured.
        files: of the version.
        code: commit and package versions.
        license: of the model; None: that of an adopted model's source, or not stated.
        usage: lines on how to run the directory without finsent.
        gate: that the version passed to become champion; None: no comparison was needed.
    """
    origin = provenance.origin
    lines = [
        "---",
        card_metadata(version, provenance, metrics, license),
        "---",
        f"# Financial sentiment {version}",
        "",
        *(_adopted_model(provenance, origin) if origin else _trained_model(provenance, license)),
        *_results(metrics, is_adopted=origin is not None),
        *_confidence(metrics, "other labeled rows" if origin else "the validation split"),
        *files_section(files),
        *code_section(provenance, code or {}),
        *usage,
        *(_comparison(gate) if gate else []),
        "## Limits",
        _limits(provenance),
    ]
    return "\n".join(lines) + "\n"


def _limits(provenance: Provenance) -> str:
    if provenance.origin is None:
        return _LIMITS
    return _LIMITS_ADOPTED_WITH_DATASET if provenance.dataset else _LIMITS_ADOPTED


def _trained_model(provenance: Provenance, license: str | None) -> list[str]:
    return [
        f"Classifies English financial text as {', '.join(LABELS)}, from an investor's point of "
        f"view. Fine-tuned from `{cell(provenance.backbone)}`, inputs of at most "
        f"{provenance.max_length} tokens. License: {license or 'not stated'}.",
        "",
        *(data_section(dataset) if (dataset := provenance.dataset) else []),
        *base_section(provenance),
    ]


def _adopted_model(provenance: Provenance, origin: AdoptedOrigin) -> list[str]:
    revision = f", revision `{origin.revision}`" if origin.revision else ""
    absent = origin.absent_labels
    absent_sentence = f" It never answers {' or '.join(absent)}." if absent else ""
    return [
        f"Classifies text as {', '.join(LABELS)}. Adopted from `{origin.source}`{revision} "
        f"({origin.architecture}), inputs of at most {provenance.max_length} tokens."
        f"{absent_sentence}",
        "",
        "## Origin",
        f"License: {origin.license or 'unknown'}.",
        "",
        "| label of the source | label |",
        "|---|---|",
        *(f"| `{cell(name)}` | {label} |" for name, label in origin.label_map.items()),
        "",
        "| file of the source | SHA-256 |",
        "|---|---|",
        *(f"| {cell(file.path)} | {file.sha256} |" for file in origin.files),
        "",
        *(data_section(dataset) if (dataset := provenance.dataset) else []),
    ]


def _results(metrics: StoredMetrics, *, is_adopted: bool) -> list[str]:
    if not metrics.is_measured:
        return ["## Results", "Not measured when it was published.", ""]
    label_rows = [
        f"| {label} | {_figure(scores.precision)} | {_figure(scores.recall)} "
        f"| {_figure(scores.f1)} | {scores.support} |"
        for label, scores in (metrics.labels or {}).items()
    ]
    model_rows = [
        _model_row("this model", metrics, metrics.intervals or {}),
        *(_model_row(name, scores, {}) for name, scores in (metrics.baselines or {}).items()),
    ]
    split = "labeled rows that it was not calibrated on" if is_adopted else "the test split"
    return [
        f"## Results on {split} ({metrics.rows} rows)",
        "In brackets: 95 % bootstrap intervals.",
        "",
        "| | macro-F1 | accuracy | MCC | AUROC | ECE |",
        "|---|---|---|---|---|---|",
        *model_rows,
        "",
        "| label | precision | recall | F1 | rows |",
        "|---|---|---|---|---|",
        *label_rows,
        "",
    ]


def _comparison(gate: Gate) -> list[str]:
    """Return how the version compares with the champion that it replaced."""
    rows = [
        f"| {split.split_of} (`{split.dataset_version}`) | {split.judgment.rows} "
        f"| {_change(split.judgment.macro_f1)} | {_change(split.judgment.accuracy)} "
        f"| {split.judgment.outcome} |"
        for split in gate.splits
    ]
    forced = " It was published by publish.force." if gate.forced else ""
    weakened = " and ".join(gate.weakened)
    weak = f" Judged by rules weaker than the defaults: {weakened}." if weakened else ""
    return [
        f"## Comparison with the previous champion (`{gate.against}`)",
        f"Outcome: {gate.outcome}, at a margin of {gate.margin:g} and with at least "
        f"{gate.min_rows} rows.{weak}{forced} In brackets: lower bound of the difference, with "
        "95 % confidence.",
        "",
        "| test split of | rows | macro-F1 | accuracy | |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def _change(difference: Estimate | None) -> str:
    return "-" if difference is None else f"{difference.value:+.3f} ({difference.bound:+.3f})"


def _model_row(name: str, scores: StoredScores, intervals: Intervals) -> str:
    """Return the table row of the model or of a baseline."""
    figures = ("macro_f1", "accuracy", "mcc", "auroc", "ece")
    cells = [_figure(getattr(scores, key), intervals.get(key)) for key in figures]
    return f"| {name} | {' | '.join(cells)} |"


def _figure(value: float | None, interval: Interval | None = None) -> str:
    """Return a figure with its interval where there is one; `-` where the figure is undefined."""
    if value is None:
        return "-"
    bounds = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    return f"{value:.3f}{bounds}"


def _confidence(metrics: StoredMetrics, fitted_on: str) -> list[str]:
    """Return the calibration, the abstention threshold, and the accuracy that the labels allow.

    Args:
        fitted_on: description of the rows of the calibration.
    """
    calibration, abstention = metrics.calibration, metrics.abstention
    if calibration is None or abstention is None or calibration.fitted_on is None:
        return []
    lines = [
        "## Confidence",
        f"Calibrated by the temperature {_figure(calibration.temperature)} "
        f"(`calibration.json`, fitted on {fitted_on}). Expected calibration error on the "
        f"rows above: {_figure(calibration.ece_before)} without it, "
        f"{_figure(calibration.ece_after)} with it.",
        "",
    ]
    if abstention.threshold is None:
        lines.append(f"It never abstains: {abstention.reason}.")
    else:
        lines.append(
            f"It abstains below a confidence of {abstention.threshold:.3f}, chosen for an "
            f"accuracy of {abstention.wanted_accuracy:g} on {fitted_on}. On the rows above it "
            f"answers {abstention.coverage:.1%} of the rows, with an accuracy of "
            f"{_figure(abstention.accuracy)}."
        )
    ceiling = metrics.noise_ceiling
    if ceiling is not None and ceiling.rows_in is not None and ceiling.rows_in < 1:
        lines += [
            "",
            "The labels contradict each other: no classifier can exceed an accuracy of "
            f"{ceiling.kept:.3f} on the rows that were kept, {ceiling.rows_in:.3f} on all "
            "that were read.",
        ]
    return [*lines, ""]
