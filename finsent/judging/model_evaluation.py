"""The evaluation of a model on the rows that the section `evaluate` selects, with its report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from finsent.evaluation.caveats import caveats, over_labels
from finsent.evaluation.evaluate import evaluate, write_results
from finsent.evaluation.held_out_rows import find_held_out, training_rows, validation_keys
from finsent.evaluation.pictures import agreement_table, label_table, score_table, trust_lines
from finsent.inference.engine import Engine
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.judging.selection import COLUMNS, Selection, select_rows, without_calibrated
from finsent.metrics_record import CalibrationName, EvaluationMetrics, NoiseCeiling
from finsent.modeling.trained_on import TrainedOn, read_trained_on
from finsent.registry.calibration_lookup import find_calibration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A measured model."""

    metrics: EvaluationMetrics  # as `metrics.json` stores them
    description: str  # of the rows

    def report(self, out: Path, console: Console) -> None:
        """Write `metrics.json` and `report.html`, print tables, and log figures and caveats."""
        metrics = self.metrics
        title = (
            f"{self.description}: macro-F1{over_labels(metrics.macro_over)} "
            f"{metrics.macro_f1:.3f}, {metrics.rows} rows"
        )
        write_results(metrics, out, title)
        log.info("%s", title)
        console.print(score_table(metrics, self.description))
        console.print(label_table(metrics.labels))
        if (agreement := agreement_table(metrics.agreement)) is not None:
            console.print(agreement)
        for line in trust_lines(metrics):
            log.info("%s", line)
        for caveat in caveats(metrics):
            log.warning("%s", caveat)
        log.info("report: %s", out / "report.html")


def measure_model(setup: EvaluationSetup, model_dir: Path) -> Evaluation:
    """Measure a model. Needs no Ray.

    Raises:
        InputError: the model, its calibration, its dataset version or a file is unusable.
    """
    config, registry = setup.evaluate, setup.registry
    domain = find_calibration(registry, model_dir, config.calibration, "evaluate.calibration")
    engine = Engine(model_dir, setup.engine.exact(), domain=domain)
    trained_on = read_trained_on(model_dir)
    selection = select_rows(setup, trained_on)
    if domain is not None:
        selection = without_calibrated(selection, domain)
    _warn_of_validation_rows(setup, trained_on, selection)
    log.info("evaluate: %s on %d rows (%s)", model_dir, len(selection.rows), selection.description)
    version = selection.version
    ceiling = None
    if version and not config.sources:
        ceiling = NoiseCeiling(**dict(version.manifest.noise_ceiling))
    figures = evaluate(
        engine,
        selection.rows,
        _baseline_rows(setup, trained_on, selection),
        training_rows(setup.workspace, trained_on),
        config,
        ceiling,
        setup.data.near_duplicates,
    )
    metrics = figures.replaced(
        model_dir=str(model_dir),
        model_version=registry.version_at(model_dir),
        domain_calibration=domain and CalibrationName(name=domain.name, id=domain.id),
        dataset_version=version.version if version else None,
        split=None if config.sources else config.split,
        sources=[source.uri for source in config.sources],
    )
    return Evaluation(metrics, selection.description)


def _baseline_rows(
    setup: EvaluationSetup, trained_on: TrainedOn | None, selection: Selection
) -> pa.Table | None:
    """Return the rows to fit baselines on; None: no baselines."""
    if not setup.evaluate.baselines:
        return None
    if selection.version is None:
        name = trained_on.version if trained_on else "of a model that was trained elsewhere"
        log.info("no baselines: dataset version %s is not found", name)
        return None
    return selection.version.read("train", COLUMNS)


def _warn_of_validation_rows(
    setup: EvaluationSetup, trained_on: TrainedOn | None, selection: Selection
) -> None:
    """Warn of validation rows of the model, which make its figures too good."""
    keys = validation_keys(setup.workspace, trained_on)
    [count] = find_held_out(selection.rows, [keys]).counts
    if count:
        log.warning(
            "evaluate: %d of the %d rows are validation rows of the model: they chose its epoch "
            "and fitted its calibration, so the figures flatter it",
            count,
            len(selection.rows),
        )
