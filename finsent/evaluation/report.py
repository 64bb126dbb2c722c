"""The report of an evaluation: an HTML page for people who decide whether to use a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finsent.evaluation.caveats import absent_labels, caveats, over_labels
from finsent.evaluation.pictures import KIND_NAMES, pictures_of
from finsent.files import read_json, staged_dir, write_text
from finsent.labels import LABELS
from finsent.reports.page import render
from finsent.reports.pictures import draw_all

Result = dict[str, Any]

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


def write_report(result: Result, out_dir: Path, title: str) -> None:
    """Write the self-contained `report.html`, and `pictures/*.png` next to it.

    Both replace older ones atomically. A section without figures is left out, or states that.

    Args:
        result: as `ray_jobs.evaluate` returns it: `rows` and the figures of `FIGURES`, `labels`,
            `confusion`, `intervals`, `noise_ceiling`, `baselines`, `calibration`, `reliability`
            (and `reliability_before`), `abstention`, `slices`, `behavior`, `mistakes`,
            `seen_in_training`, `overlap`, `truncation`, `agreement`, `macro_over`,
            `model_dir`, `dataset_version`, `split`.
        out_dir: a directory; created if missing.
        title: the page's heading.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with staged_dir(out_dir / "pictures", replace=True) as folder:
        page = _page(result, draw_all(pictures_of(result), result, folder), title)
    write_text(out_dir / "report.html", page)


def page_without_texts(out_dir: Path, title: str) -> str:
    """Render a written report without texts of rows.

    Args:
        out_dir: has `metrics.json` and `pictures/*.png`.
    """
    result = read_json(out_dir / "metrics.json")
    behavior = result.get("behavior") or {}
    groups = [{**group, "examples": []} for group in behavior.get("groups") or []]
    without_texts = {**result, "mistakes": None, "behavior": {**behavior, "groups": groups}}
    pictures = {path.stem: path for path in sorted((out_dir / "pictures").glob("*.png"))}
    return _page(without_texts, pictures, title)


def _page(result: Result, pictures: dict[str, Path], title: str) -> str:
    mistakes = result.get("mistakes")
    return render(
        "finsent.evaluation/report.html.j2",
        pictures,
        title=title,
        result=result,
        warnings=list(warnings(result)),
        figures=FIGURES,
        tiles=[name for name in _TILES if result.get(name) is not None],
        kinds=KIND_NAMES,
        behavior=_worst_first(result),
        mistakes=mistakes and mistakes[:_MAX_MISTAKES],
        identity=_identity(result),
        over=over_labels(result),
        absent=absent_labels(result),
    )


def _worst_first(result: Result) -> Result | None:
    """Return the outcome of the behavior suite, the worst group first; None: it was not run."""
    behavior = result.get("behavior")
    if not behavior or not behavior.get("groups"):
        return None
    groups = sorted(behavior["groups"], key=lambda group: -group["failure_rate"])
    return {**behavior, "groups": groups}


def _identity(result: Result) -> dict[str, Any]:
    """Return model, rows and calibration of the evaluation by name, where known."""
    overlap, truncation = result.get("overlap") or {}, result.get("truncation") or {}
    seen = result.get("seen_in_training")
    unknown = f"not known ({overlap['reason']})" if overlap.get("reason") else "not known"
    speed = result.get("rows_per_second")
    fitted_on = (result.get("calibration") or {}).get("fitted_on") or {}
    identity = {
        "model": result.get("model_dir"),
        "dataset version": result.get("dataset_version"),
        "split": result.get("split"),
        "rows": result.get("rows"),
        "rows that the model was trained on": unknown if seen is None else seen,
        "near copies of rows that the model was trained on": overlap.get("near_copies"),
        "macro-F1 over": ", ".join(result.get("macro_over") or []),
        "truncated texts": truncation.get("cut"),
        "maximum tokens of a text": truncation.get("max_length"),
        "calibration for a domain": (result.get("domain_calibration") or {}).get("name"),
        "temperature": (result.get("calibration") or {}).get("temperature"),
        "temperature fitted on": " ".join(
            str(fitted_on[key]) for key in ("dataset_version", "split") if fitted_on.get(key)
        ),
        "rows per second": None if speed is None else round(speed, 1),
    }
    return {name: value for name, value in identity.items() if value not in (None, "")}


# --- warnings -----------------------------------------------------------------------------------


def warnings(result: Result) -> Iterator[str]:
    """Yield the warnings on a result, each with its figure and a remedy."""
    yield from _about_rows(result)
    yield from _about_figures(result)
    yield from _about_confidence(result)
    yield from _about_parts(result)


def _about_rows(result: Result) -> Iterator[str]:
    yield from caveats(result)
    for label in LABELS:
        rows = ((result.get("labels") or {}).get(label) or {}).get("support")
        if rows and rows < _MIN_LABEL_ROWS:  # without any: a caveat
            yield (
                f"There are only {rows} {label} rows: each changes the recall by {1 / rows:.3f}. "
                "Add rows, or rely on the intervals instead of the figures."
            )


def _about_figures(result: Result) -> Iterator[str]:
    interval = (result.get("intervals") or {}).get("macro_f1")
    low = interval[0] if interval else result.get("macro_f1")
    for name, baseline in (result.get("baselines") or {}).items():
        if low is not None and baseline.get("macro_f1", 0) >= low:
            yield (
                f"The baseline {name} reaches a macro-F1 of {baseline['macro_f1']:.3f}, which the "
                f"model does not clearly exceed (lower bound {low:.3f}). Train longer, on more "
                "rows or from a better backbone."
            )
    ceiling = (result.get("noise_ceiling") or {}).get("kept")
    if ceiling is not None and ceiling < 1:
        yield (
            f"No deterministic classifier can be right on more than {ceiling:.1%} of these rows: "
            "texts have several labels. Resolve them with data.conflicts."
        )


def _about_confidence(result: Result) -> Iterator[str]:
    ece = result.get("ece")
    if ece is not None and ece > _MAX_ECE:
        yield (
            f"Confidence differs from accuracy by {ece:.3f} on average (ECE). Calibrate on rows "
            "like these before you use the confidence."
        )
    rule = result.get("abstention") or {}
    wanted, reached = rule.get("wanted_accuracy"), rule.get("accuracy")
    is_below = reached is not None and (wanted or 0) > reached
    if rule.get("threshold") is not None and is_below and rule.get("holds") is not False:
        yield (
            f"At the model's threshold {reached:.1%} of the answered rows are right; {wanted:.1%} "
            "are wanted. Calibrate on rows like these, or raise evaluate.wanted_accuracy."
        )


def _about_parts(result: Result) -> Iterator[str]:
    overall = (result.get("intervals") or {}).get("accuracy")
    for part in result.get("slices") or []:
        if overall and not part.get("small") and part["interval"][1] < overall[0]:
            yield (
                f"{part['slice']}, {part['value']}: accuracy {part['accuracy']:.3f} on "
                f"{part['rows']:,} rows, {-part['difference']:.3f} below that of all rows, "
                "beyond chance. Add training rows of that kind."
            )
    groups = (result.get("behavior") or {}).get("groups") or []
    failing = [group["group"] for group in groups if group["failure_rate"] >= 0.5]
    if failing:
        yield (
            f"At least half of the cases fail in {len(failing)} of {len(groups)} groups of the "
            f"behavior suite: {'; '.join(failing)}. Add training rows of these kinds."
        )
