"""Measure a trained or published model on labeled rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from finsent.data.versions.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.evaluation.metrics import brief
from finsent.evaluation.overlap import TrainingRows
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.registry.references import find_any_model
from finsent.registry.registry import Registry
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main, table_console
from ray_jobs._domains import calibration_of
from ray_jobs._tracking import tracking

log = logging.getLogger(__name__)

COLUMNS = ["key", "text", "label", "source", "row", "agreement"]


def locate(settings: Settings, reference: str, field: str) -> Path:
    """Return the directory of a run's model, or of a published version (verified)."""
    registry = Registry(settings.registry_dir)
    return find_any_model(reference, registry, settings.runs_dir, field)


@dataclass(frozen=True)
class Selection:
    """The rows that the section `evaluate` names."""

    rows: pa.Table
    what: str  # for people
    version: DatasetVersion | None  # None: they come from files, and no version is at hand


def on_own_test_split(settings: Settings) -> Settings:
    """Return settings by which a model is measured as it is, on its own test split."""
    return settings.replaced(evaluate=settings.evaluate.on_own_test_split())


def own_dataset(settings: Settings, trained_on: dict[str, Any] | None) -> DatasetVersion | None:
    """The version that a model was trained on, or None when it is not here (any more).

    Args:
        trained_on: `dataset` of the model's provenance; None: the model was trained elsewhere.
    """
    if trained_on is None:
        return None
    folder = settings.root / "datasets" / trained_on["name"]
    return DatasetVersion.at(folder / trained_on["version"])


def training_rows(settings: Settings, trained_on: dict[str, Any] | None) -> TrainingRows:
    """Return the rows that a model was trained on, or why they are not known.

    Args:
        trained_on: `dataset` of the model's provenance; None: the model was trained elsewhere.
    """
    if trained_on is None:
        return TrainingRows()
    version = own_dataset(settings, trained_on)
    if version is None:
        name = trained_on["version"]
        folder = settings.root / "datasets" / trained_on["name"]
        return TrainingRows(None, f"dataset version {name} is not in {str(folder)!r}")
    return TrainingRows(version.read("train", ["key", "text"]), None)


def validation_keys(
    settings: Settings, trained_on: dict[str, Any] | None
) -> pa.ChunkedArray | None:
    """Return the keys of the rows that chose a model's epoch and fitted its calibration.

    Args:
        trained_on: `dataset` of the model's provenance; None: the model was trained elsewhere.

    Returns:
        None: the rows are not known.
    """
    version = own_dataset(settings, trained_on)
    return None if version is None else version.read("validation", ["key"])["key"]


def select_rows(settings: Settings, trained_on: dict[str, Any] | None) -> Selection:
    """Read the rows to measure on; by default a split of what the model was trained on.

    Of a model that was trained elsewhere: of the latest version of `data.name`.

    Raises:
        InputError: the dataset version is not at hand, or a file is unusable.
    """
    from finsent.evaluation.evaluate import read_benchmark

    config = settings.evaluate
    version = own_dataset(settings, trained_on)
    if config.dataset or (version is None and not config.sources):
        own = trained_on or {"name": settings.data.name, "version": "latest"}
        reference = config.dataset or own["version"]
        folder = settings.root / "datasets" / own["name"]
        version = DatasetVersion.find(reference, folder, "evaluate.dataset")
    if config.sources:
        rows = read_benchmark(config.sources, settings.data, settings.sources_dir)
        what = ", ".join(source.name or Path(source.uri).name for source in config.sources)
        return Selection(rows, what, version)
    assert version is not None
    rows = version.read(config.split, COLUMNS)
    return Selection(rows, f"{config.split} split of {version.version}", version)


def without_calibrated(chosen: Selection, domain: DomainCalibration) -> Selection:
    """Leave out the rows that a calibration was fitted on.

    Near copies stay: a calibration stores keys of its rows, not their texts.

    Raises:
        InputError: no row remains.
    """
    from finsent.evaluation.compare import unseen

    rows, [known] = unseen(chosen.rows, pa.chunked_array([pa.array(domain.keys, pa.string())]))
    if not len(rows):
        raise InputError(
            f"evaluate.calibration={domain.name!r}: was fitted on each of the {len(chosen.rows)} "
            f"rows of {chosen.what}. Set evaluate.sources to others."
        )
    log.info(
        "evaluate: left out %d rows that the calibration %s was fitted on; near copies of its "
        "rows, if any, stay: it stores no texts",
        known,
        domain.name,
    )
    return replace(chosen, rows=rows)


def _warn_of_validated(
    settings: Settings, trained_on: dict[str, Any] | None, chosen: Selection
) -> None:
    """Say how many rows chose the model's epoch, which flatters its figures."""
    from finsent.evaluation.compare import unseen

    count = unseen(chosen.rows, validation_keys(settings, trained_on))[1][0]
    if count:
        log.warning(
            "evaluate: %d of the %d rows are validation rows of the model: they chose its epoch "
            "and fitted its calibration, so the figures flatter it",
            count,
            len(chosen.rows),
        )


def step(settings: Settings, model_dir: Path, out: Path) -> Result:
    """Measure a model and write the report to `out`. Needs no Ray."""
    from finsent.evaluation.evaluate import evaluate
    from finsent.inference.engine import Engine

    config = settings.evaluate
    domain = calibration_of(settings, model_dir, config.calibration, "evaluate.calibration")
    engine = Engine(model_dir, settings.engine.exact(), domain=domain)
    trained_on = engine.provenance.dataset
    chosen = select_rows(settings, trained_on)
    version, what = chosen.version, chosen.what
    train = version.read("train", COLUMNS) if version and config.baselines else None
    if version is None and config.baselines:
        shown = trained_on["version"] if trained_on else "of a model that was trained elsewhere"
        log.info("no baselines: dataset version %s is not at hand", shown)
    seen = training_rows(settings, trained_on)
    ceiling = None
    if version and not config.sources:
        ceiling = version.manifest.noise_ceiling.model_dump()
    if domain is not None:
        chosen = without_calibrated(chosen, domain)
    _warn_of_validated(settings, trained_on, chosen)
    log.info("evaluate: %s on %d rows (%s)", model_dir, len(chosen.rows), what)
    result = {
        "model_dir": str(model_dir),
        "model_version": Registry(settings.registry_dir).version_at(model_dir),
        "domain_calibration": domain and {"name": domain.name, "id": domain.id},
        "dataset_version": version.version if version else None,
        "split": None if config.sources else config.split,
        "sources": [source.uri for source in config.sources],
        **evaluate(
            engine, chosen.rows, train, seen, config, ceiling, settings.data.near_duplicates
        ),
    }
    report(result, what, out)
    return {**brief(result), "report_dir": str(out)}


def report(result: Result, what: str, out: Path) -> None:
    """Write a result to `out`, print its tables, and log what a reader must know.

    Args:
        what: name of the rows.
    """
    from finsent.evaluation.evaluate import write_results
    from finsent.evaluation.pictures import (
        agreement_table,
        label_table,
        score_table,
        trust_lines,
    )
    from finsent.evaluation.remarks import over_labels, remarks

    title = f"{what}: macro-F1{over_labels(result)} {result['macro_f1']:.3f}, {result['rows']} rows"
    write_results(result, out, title)
    log.info("%s", title)
    console = table_console()
    console.print(score_table(result, what))
    console.print(label_table(result))
    if (agreement := agreement_table(result)) is not None:
        console.print(agreement)
    for line in trust_lines(result):
        log.info("%s", line)
    for remark in remarks(result):
        log.warning("%s", remark)
    log.info("report: %s", out / "report.html")


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    model_dir = locate(settings, settings.evaluate.model, "evaluate.model")
    run_of_model = model_dir.parent
    is_own = settings.evaluate == settings.evaluate.on_own_test_split()
    if is_own and model_dir.name == "model":
        out = run_of_model / "evaluation"  # where publish looks
        with tracking(settings, run_of_model) as tracker:
            found = step(settings, model_dir, out)
            tracker.report(found, out)
        return found
    return step(settings, model_dir, call.run_dir / "evaluation")


JOB = Job(
    name="evaluate",
    summary="Measure a model on a split of its dataset version, or on labeled files: accuracy, "
    "F1, MCC, AUROC, log loss, Brier score and calibration error (ECE) with bootstrap intervals, "
    "figures by label, confusion matrix, and how often it abstains, beside the majority class, "
    "VADER and TF-IDF + logistic regression; accuracy by slices, and a behavior suite. Writes "
    "metrics.json and report.html with its pictures. The test split's report of a run's model "
    "goes into that run, where `ray_jobs.publish` looks for it.",
    result="model_dir, model_version (null: not published), domain_calibration (name, id; null: "
    "the model's own), dataset_version, split, rows, accuracy, macro_f1, macro_over (labels with "
    "rows), weighted_f1, mcc, auroc, log_loss, brier, ece, labels (precision, recall, f1, support, "
    "auroc; null: no rows), confusion (rows: true, columns: predicted), intervals (95 %, by "
    "figure), noise_ceiling, agreement (accuracy by the annotators' agreement), baselines, "
    "calibration, abstention (holds: whether the wanted accuracy is reached here; null: not "
    "known), behavior (cases, failed), seen_in_training, overlap (rows and near copies that the "
    "model was trained on, figures on the unseen others, or the reason why that is not known), "
    "truncation (texts cut, tokens left out), rows_per_second, report_dir, run_dir, seconds; "
    "metrics.json also has reliability, slices, mistakes, the groups of cases and the "
    "abstention's curve",
    sections=("evaluate", "engine", "data", "registry", "storage", "run", "tracking"),
    run=run,
)

if __name__ == "__main__":
    main(JOB)
