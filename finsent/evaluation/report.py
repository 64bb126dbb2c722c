"""A page for the person who must decide whether to trust a model."""

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
    "macro_f1": ("macro-F1", "mean F1 of the labels, each counted alike"),
    "weighted_f1": ("weighted F1", "mean F1 of the labels, weighted by their rows"),
    "mcc": ("MCC", "correlation of predicted and true labels; 0 is chance, 1 perfect"),
    "auroc": ("AUROC", "how well probabilities rank, each label against the rest; 0.5 is chance"),
    "log_loss": ("log loss", "mean of -ln(probability of the true label); lower is better"),
    "brier": ("Brier score", "squared distance to the truth, 0 to 2; lower is better"),
    "ece": ("ECE", "mean gap between confidence and accuracy; lower is better"),
}
_TILES = ("accuracy", "macro_f1", "mcc", "auroc", "log_loss", "ece")
_FEW_ROWS = 50  # of a label
_LARGE_ECE = 0.05
_MOST_MISTAKES = 50


def write_report(result: Result, out_dir: Path, title: str) -> None:
    """Write `report.html`, which holds all it shows, and `pictures/*.png` beside it.

    Each replaces an older one as a whole. A section whose part of the result is missing or null is
    left out, or says so.

    Args:
        result: as `ray_jobs.evaluate` returns it: `rows` and the figures of `FIGURES`, `labels`,
            `confusion`, `intervals`, `noise_ceiling`, `baselines`, `calibration`, `reliability`
            (and `reliability_before`), `abstention`, `slices`, `behavior`, `mistakes`,
            `seen_in_training`, `overlap`, `truncation`, `agreement`, `macro_over`,
            `model_dir`, `dataset_version`, `split`.
        out_dir: a directory; made when it is not there.
        title: the page's heading.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with staged_dir(out_dir / "pictures", replace=True) as folder:
        page = _page(result, draw_all(pictures_of(result), result, folder), title)
    write_text(out_dir / "report.html", page)


def page_without_texts(out_dir: Path, title: str) -> str:
    """The page of a written report again, for readers who may not see the rows.

    Args:
        out_dir: has `metrics.json` and `pictures/*.png`.
    """
    result = read_json(out_dir / "metrics.json")
    behavior = result.get("behavior") or {}
    groups = [{**group, "examples": []} for group in behavior.get("groups") or []]
    shown = {**result, "mistakes": None, "behavior": {**behavior, "groups": groups}}
    drawn = {path.stem: path for path in sorted((out_dir / "pictures").glob("*.png"))}
    return _page(shown, drawn, title)


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
        behavior=_by_failures(result),
        mistakes=mistakes and mistakes[:_MOST_MISTAKES],
        identity=_identity(result),
        over=over_labels(result),
        absent=absent_labels(result),
    )


def _by_failures(result: Result) -> Result | None:
    """The behavior suite's outcome, the worst group first."""
    found = result.get("behavior")
    if not found or not found.get("groups"):
        return None
    return {**found, "groups": sorted(found["groups"], key=lambda g: -g["failure_rate"])}


def _identity(result: Result) -> dict[str, Any]:
    """What was measured on what, as far as it is known."""
    overlap, truncation = result.get("overlap") or {}, result.get("truncation") or {}
    seen = result.get("seen_in_training")
    unknown = f"not known ({overlap['reason']})" if overlap.get("reason") else "not known"
    speed = result.get("rows_per_second")
    fitted = (result.get("calibration") or {}).get("fitted_on") or {}
    found = {
        "model": result.get("model_dir"),
        "dataset version": result.get("dataset_version"),
        "split": result.get("split"),
        "rows": result.get("rows"),
        "rows that the model was trained on": unknown if seen is None else seen,
        "near copies of rows that the model was trained on": overlap.get("near_copies"),
        "macro-F1 over": ", ".join(result.get("macro_over") or []),
        "texts that are cut": truncation.get("cut"),
        "tokens that the model reads at most": truncation.get("max_length"),
        "calibration for a domain": (result.get("domain_calibration") or {}).get("name"),
        "temperature": (result.get("calibration") or {}).get("temperature"),
        "temperature fitted on": " ".join(
            str(fitted[key]) for key in ("dataset_version", "split") if fitted.get(key)
        ),
        "rows per second": None if speed is None else round(speed, 1),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


# --- warnings -----------------------------------------------------------------------------------


def warnings(result: Result) -> Iterator[str]:
    """What should give pause, each with its number and a remedy."""
    yield from _about_rows(result)
    yield from _about_figures(result)
    yield from _about_confidence(result)
    yield from _about_parts(result)


def _about_rows(result: Result) -> Iterator[str]:
    yield from caveats(result)
    for label in LABELS:
        rows = ((result.get("labels") or {}).get(label) or {}).get("support")
        if rows and rows < _FEW_ROWS:  # without any: a caveat
            yield (
                f"There are {rows} {label} rows: one of them is worth {1 / rows:.3f} of its "
                "recall. Add rows, or look at the intervals rather than the figures."
            )


def _about_figures(result: Result) -> Iterator[str]:
    interval = (result.get("intervals") or {}).get("macro_f1")
    low = interval[0] if interval else result.get("macro_f1")
    for name, found in (result.get("baselines") or {}).items():
        if low is not None and found.get("macro_f1", 0) >= low:
            yield (
                f"The baseline {name} reaches a macro-F1 of {found['macro_f1']:.3f}, which the "
                f"model does not clearly beat ({low:.3f} at the low end). Train longer, on more "
                "rows or from a better backbone."
            )
    ceiling = (result.get("noise_ceiling") or {}).get("kept")
    if ceiling is not None and ceiling < 1:
        yield (
            f"No deterministic classifier can be right on more than {ceiling:.1%} of these rows: "
            "texts stand under several labels. Settle them with data.conflicts."
        )


def _about_confidence(result: Result) -> Iterator[str]:
    ece = result.get("ece")
    if ece is not None and ece > _LARGE_ECE:
        yield (
            f"Confidence is {ece:.3f} off the accuracy on average (ECE). Do not act on it without "
            "a calibration on rows like these."
        )
    rule = result.get("abstention") or {}
    wanted, reached = rule.get("wanted_accuracy"), rule.get("accuracy")
    is_below = reached is not None and (wanted or 0) > reached
    if rule.get("threshold") is not None and is_below and rule.get("holds") is not False:
        yield (
            f"With the model's threshold {reached:.1%} of the answered rows are right, not the "
            f"{wanted:.1%} wanted. Calibrate on rows like these, or ask for more."
        )


def _about_parts(result: Result) -> Iterator[str]:
    whole = (result.get("intervals") or {}).get("accuracy")
    for part in result.get("slices") or []:
        if whole and not part.get("small") and part["interval"][1] < whole[0]:
            yield (
                f"{part['slice']}, {part['value']}: accuracy {part['accuracy']:.3f} on "
                f"{part['rows']:,} rows, {-part['difference']:.3f} below that of all rows and not "
                "by chance. Add training rows of that kind."
            )
    groups = (result.get("behavior") or {}).get("groups") or []
    failing = [group["group"] for group in groups if group["failure_rate"] >= 0.5]
    if failing:
        yield (
            f"At least half of the cases fail in {len(failing)} of {len(groups)} groups of the "
            f"behavior suite: {'; '.join(failing)}. Add training rows that show the difference."
        )
