"""Measure a trained or published model on labelled rows."""

from __future__ import annotations

import logging
from pathlib import Path

from finsent.data.dataset import DatasetVersion
from finsent.errors import InputError
from finsent.registry.registry import Registry
from finsent.runs import find_model
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main, table_console

log = logging.getLogger(__name__)

COLUMNS = ["key", "text", "label"]


def locate(settings: Settings, reference: str, field: str) -> Path:
    """The directory of a run's model, or of a published version (verified)."""
    registry = Registry(settings.registry_dir)
    published = {v.version for v in registry.versions()} | registry.aliases().keys()
    if reference in published:
        return registry.get(reference).path
    try:
        return find_model(reference, settings.runs_dir, field)
    except InputError as error:
        known = ", ".join(sorted(published)) or "none"
        raise InputError(f"{error}; published in {str(registry.root)!r}: {known}") from None


def step(settings: Settings, model_dir: Path, out: Path) -> Result:
    """Measure a model and write the report to `out`. Needs no Ray."""
    from finsent.evaluation.evaluate import evaluate, read_benchmark, write_report
    from finsent.evaluation.pictures import label_table, score_table
    from finsent.inference.engine import Engine

    config = settings.evaluate
    engine = Engine(model_dir, settings.engine)
    trained_on = engine.provenance["dataset"]
    folder = settings.root / "datasets" / trained_on["name"]
    own = DatasetVersion.at(folder / trained_on["version"])
    version = own
    if config.dataset or (own is None and not config.sources):
        reference = config.dataset or trained_on["version"]
        version = DatasetVersion.find(reference, folder, "evaluate.dataset")
    if config.sources:
        rows = read_benchmark(config.sources, settings.data, settings.sources_dir)
        what = ", ".join(source.name or Path(source.uri).name for source in config.sources)
    else:
        assert version is not None
        rows = version.read(config.split, COLUMNS)
        what = f"{config.split} split of {version.version}"
    train = version.read("train", COLUMNS) if version and config.baselines else None
    if version is None and config.baselines:
        log.info("no baselines: dataset version %s is not in %s", trained_on["version"], folder)
    seen = own.read("train", ["key"])["key"] if own else None
    log.info("evaluate: %s on %d rows (%s)", model_dir, len(rows), what)
    result = evaluate(engine, rows, train, seen)
    title = f"{what}: macro-F1 {result['macro_f1']:.3f}, {result['rows']} rows"
    write_report(result, out, title)
    console = table_console()
    console.print(score_table(result, what))
    console.print(label_table(result))
    return {
        "model_dir": str(model_dir),
        "dataset_version": version.version if version else None,
        "split": None if config.sources else config.split,
        **result,
        "report_dir": str(out),
    }


def run(call: Call) -> Result:
    """The job."""
    settings = call.settings
    model_dir = locate(settings, settings.evaluate.model, "evaluate.model")
    run_of_model = model_dir.parent
    own_test_split = not settings.evaluate.sources and settings.evaluate.split == "test"
    if own_test_split and settings.evaluate.dataset is None and model_dir.name == "model":
        return step(settings, model_dir, run_of_model / "evaluation")  # where publish looks
    return step(settings, model_dir, call.run_dir / "evaluation")


JOB = Job(
    name="evaluate",
    summary="Measure a model on a split of its dataset version, or on labelled files: accuracy, "
    "macro-F1, figures by label, confusion matrix, beside the majority class and TF-IDF +"
    " logistic regression. Writes metrics.json and confusion.png. The test split's report"
    " of a run's model goes into that run, where `ray_jobs.publish` looks for it.",
    result="model_dir, dataset_version, split, macro_f1, accuracy, rows, labels (precision, "
    "recall, f1, support), confusion (rows: true, columns: predicted), baselines, "
    "seen_in_training, rows_per_second, report_dir, run_dir, seconds",
    sections=("evaluate", "engine", "data", "registry", "storage", "run"),
    run=run,
)

if __name__ == "__main__":
    main(JOB)
