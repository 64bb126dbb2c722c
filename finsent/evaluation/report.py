"""The report of an evaluation: an HTML page for people who decide whether to use a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finsent.evaluation.caveats import absent_labels, caveats, over_labels
from finsent.evaluation.pictures import KIND_NAMES, pictures_of, worst_first
from finsent.files import staged_dir, write_text
from finsent.labels import LABELS
from finsent.metrics_record import (
    METRICS_FILE,
    CalibrationEffect,
    OverlapFigures,
    StoredMetrics,
)
from finsent.reports.page import render
from finsent.reports.pictures import draw_all

# Name and meaning of each figure.
FIGURES = {
    "accuracy": ("accuracy", "share of rows whose label is right"),
    "macro_f1": ("macro-F1", "mean F1 of the labels, each weighted equally"),
    "weighted_f1": ("weighted F1", "mean F1 of the labels, weighted by their rows"),
    "mcc": ("MCC", "correlation of predicted and true labels; 0 is chance, 1 is perfect"),
    "auroc": ("AUROC", "ranking by probability, each label against all others; 0.5 is chance"),
    "log_loss": ("log loss", "mean of -ln(probability of the true label); lower is better"),
    "brier": ("Brier score", "squared distance to the truth, 0 to 2; lower is better"),
    "ece": ("ECE", "mean gap between confidence and accuracy; lower is better"),
}
_TILES = ("accuracy", "macro_f1", "mcc", "auroc", "log_loss", "ece")
_MIN_LABEL_ROWS = 50
_MAX_ECE = 0.05
_MAX_MISTAKES = 50


def write_report(metrics: StoredMetrics, out_dir: Path, title: str) -> None:
    """Write the self-contained `report.html`, and `pictures/*.png` next to it.

    Both replace older ones atomically. A section without figures is left out, or states that.

    Args:
        out_dir: a directory; created if missing.
        title: the page's heading.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with staged_dir(out_dir / "pictures", replace=True) as folder:
        page = _page(metrics, draw_all(pictures_of(metrics), metrics, folder), title)
    write_text(out_dir / "report.html", page)


def page_without_texts(out_dir: Path, title: str) -> str:
    """Render a written report without texts of rows.

    Args:
        out_dir: has `metrics.json` and `pictures/*.png`.
    """
    metrics = StoredMetrics.read(out_dir / METRICS_FILE)
    behavior = metrics.behavior
    if behavior is not None:
        groups = [group.replaced(examples=()) for group in behavior.groups or ()]
        behavior = behavior.replaced(groups=groups)
    without_texts = metrics.replaced(mistakes=None, behavior=behavior)
    pictures = {path.stem: path for path in sorted((out_dir / "pictures").glob("*.png"))}
    return _page(without_texts, pictures, title)


def _page(metrics: StoredMetrics, pictures: dict[str, Path], title: str) -> str:
    mistakes, behavior, groups = metrics.mistakes, metrics.behavior, worst_first(metrics.behavior)
    return render(
        "finsent.evaluation/report.html.j2",
        pictures,
        title=title,
        result=metrics,
        warnings=list(warnings(metrics)),
        figures=FIGURES,
        tiles=[name for name in _TILES if getattr(metrics, name) is not None],
        kinds=KIND_NAMES,
        behavior=behavior.replaced(groups=groups) if behavior and groups else None,
        mistakes=mistakes and mistakes[:_MAX_MISTAKES],
        identity=_identity(metrics),
        over=over_labels(metrics.macro_over),
        absent=absent_labels(metrics.macro_over),
    )


def _identity(metrics: StoredMetrics) -> dict[str, str | int | float]:
    """Return model, rows and calibration of the evaluation by name, where known."""
    overlap, seen = metrics.overlap or OverlapFigures(rows=None), metrics.seen_in_training
    truncation, calibration, domain = (
        metrics.truncation,
        metrics.calibration,
        metrics.domain_calibration,
    )
    reason = f" ({overlap.reason})" if overlap.reason else ""
    speed = metrics.rows_per_second
    identity: dict[str, str | int | float | None] = {
        "model": metrics.model_dir,
        "dataset version": metrics.dataset_version,
        "split": metrics.split,
        "rows": metrics.rows,
        "rows that the model was trained on": f"not known{reason}" if seen is None else seen,
        "near copies of rows that the model was trained on": overlap.near_copies
        if overlap
        else None,
        "macro-F1 over": ", ".join(metrics.macro_over or ()),
        "truncated texts": truncation.cut if truncation else None,
        "maximum tokens of a text": truncation.max_length if truncation else None,
        "calibration for a domain": domain.name if domain else None,
        "temperature": calibration.temperature if calibration else None,
        "temperature fitted on": _fitted_on(calibration),
        "rows per second": None if speed is None else round(speed, 1),
    }
    return {name: value for name, value in identity.items() if value not in (None, "")}


def _fitted_on(calibration: CalibrationEffect | None) -> str:
    """Return the rows that the temperature was fitted on; empty: not known."""
    origin = calibration.fitted_on if calibration else None
    return " ".join(filter(None, (origin.dataset_version, origin.split))) if origin else ""


# --- warnings -----------------------------------------------------------------------------------


def warnings(metrics: StoredMetrics) -> Iterator[str]:
    """Yield the warnings on an evaluation, each with its figure and a remedy."""
    yield from _about_rows(metrics)
    yield from _about_figures(metrics)
    yield from _about_confidence(metrics)
    yield from _about_parts(metrics)


def _about_rows(metrics: StoredMetrics) -> Iterator[str]:
    yield from caveats(metrics)
    labels = metrics.labels or {}
    for label in LABELS:
        rows = labels[label].support if label in labels else 0
        if rows and rows < _MIN_LABEL_ROWS:  # without any: a caveat
            yield (
                f"There are only {rows} {label} rows: each changes the recall by {1 / rows:.3f}. "
                "Add rows, or rely on the intervals instead of the figures."
            )


def _about_figures(metrics: StoredMetrics) -> Iterator[str]:
    interval = (metrics.intervals or {}).get("macro_f1")
    low = interval[0] if interval else metrics.macro_f1
    for name, baseline in (metrics.baselines or {}).items():
        reached = baseline.macro_f1
        if low is not None and reached is not None and reached >= low:
            yield (
                f"The baseline {name} reaches a macro-F1 of {reached:.3f}, which the "
                f"model does not clearly exceed (lower bound {low:.3f}). Train longer, on more "
                "rows or from a better backbone."
            )
    ceiling = metrics.noise_ceiling
    if ceiling is not None and ceiling.kept < 1:
        yield (
            f"No deterministic classifier can be right on more than {ceiling.kept:.1%} of these "
            "rows: texts have several labels. Resolve them with data.conflicts."
        )


def _about_confidence(metrics: StoredMetrics) -> Iterator[str]:
    ece, rule = metrics.ece, metrics.abstention
    if ece is not None and ece > _MAX_ECE:
        yield (
            f"Confidence differs from accuracy by {ece:.3f} on average (ECE). Calibrate on rows "
            "like these before you use the confidence."
        )
    if rule is None or rule.threshold is None or rule.holds is False:
        return
    wanted, reached = rule.wanted_accuracy, rule.accuracy
    if wanted is not None and reached is not None and reached < wanted:
        yield (
            f"At the model's threshold {reached:.1%} of the answered rows are right; {wanted:.1%} "
            "are wanted. Calibrate on rows like these, or raise evaluate.wanted_accuracy."
        )


def _about_parts(metrics: StoredMetrics) -> Iterator[str]:
    overall = (metrics.intervals or {}).get("accuracy")
    for entry in metrics.slices or ():
        if overall and not entry.small and entry.interval[1] < overall[0]:
            yield (
                f"{entry.slice}, {entry.value}: accuracy {entry.accuracy:.3f} on "
                f"{entry.rows:,} rows, {-entry.difference:.3f} below that of all rows, "
                "beyond chance. Add training rows of that kind."
            )
    groups = (metrics.behavior.groups if metrics.behavior else None) or ()
    failing = [group.group for group in groups if group.failure_rate >= 0.5]
    if failing:
        yield (
            f"At least half of the cases fail in {len(failing)} of {len(groups)} groups of the "
            f"behavior suite: {'; '.join(failing)}. Add training rows of these kinds."
        )
