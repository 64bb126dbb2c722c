"""Fit a published model version to a domain by few labeled rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from finsent.errors import ConfigError, InputError
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.registry.calibrations import Calibrations
from finsent.registry.registry import Registry
from finsent.settings import Settings
from ray_jobs._cli import Call, Job, Result, main, table_console
from ray_jobs.evaluate import training_rows

if TYPE_CHECKING:
    from finsent.evaluation.overlap import Overlap

log = logging.getLogger(__name__)


def step(settings: Settings) -> DomainCalibration:
    """Fit, measure and publish a calibration. Needs no Ray.

    Raises:
        ConfigError: a name or sources are missing.
        InputError: the model or a file is unusable, rows are too few, or the calibration does not
            help.
    """
    from finsent.evaluation.domain import calibrate
    from finsent.evaluation.evaluate import read_benchmark
    from finsent.evaluation.overlap import find_overlap
    from finsent.inference.engine import Engine

    config = settings.calibrate
    if config.name is None:
        raise ConfigError("calibrate.name=null: name the calibration, e.g. calibrate.name=tweets")
    if not config.sources:
        raise ConfigError(
            "calibrate.sources=[]: name labeled files of the domain, e.g. "
            "calibrate.sources='[tweets.csv]'"
        )
    registry = Registry(settings.registry_dir)
    version = registry.get(config.model, "calibrate.model")
    rows = read_benchmark(config.sources, settings.data, settings.sources_dir, "calibrate.sources")
    engine = Engine(version.path, settings.engine.exact())
    near = settings.data.near_duplicates
    overlap = find_overlap(rows, training_rows(settings, engine.provenance.dataset), near)
    for line in _left_out(overlap):
        log.info("calibrate: %s", line)
    if overlap.seen is not None:
        rows = rows.filter(pa.array(~overlap.seen))
    if not len(rows):
        raise InputError(
            f"calibrate.sources={[source.uri for source in config.sources]}: the model was trained "
            "on each of their rows, or on a near copy of it. Name files of other rows."
        )
    names = [source.name or Path(source.uri).name for source in config.sources]
    content = calibrate(engine, rows, version.version, names, config, settings.evaluate, near)
    return Calibrations(registry.root, version.version).publish(DomainCalibration.of(content))


def _left_out(overlap: Overlap) -> Iterator[str]:
    """Yield which rows the model was trained on, and what is not known of that."""
    if overlap.exact is None:
        yield f"it is not known which of the rows the model was trained on ({overlap.reason})"
        return
    if overlap.exact.any():
        yield f"left out {overlap.exact.sum()} rows that the model was trained on"
    if overlap.near is None:
        yield f"it is not known which rows are near copies of training rows ({overlap.reason})"
    elif overlap.near.any():
        yield f"left out {overlap.near.sum()} near copies of rows that the model was trained on"


def run(call: Call) -> Result:
    """The job."""
    from finsent.evaluation.domain_report import gain_lines, gain_table, summary

    found = step(call.settings)
    table_console().print(gain_table(found))
    for line in gain_lines(found):
        log.info("%s", line)
    path = Calibrations(call.settings.registry_dir, found.model_version).path(found.name)
    log.info("calibration %s of model version %s: %s", found.name, found.model_version, path)
    return {**summary(found), "file": str(path)}


JOB = Job(
    name="calibrate",
    summary="Fit a published model version to a domain by about 200 labeled rows: a temperature, "
    "a bias per label and an abstention threshold, on top of the version's own calibration. The "
    "version stays as it is: the calibration is published next to it under calibrate.name, and "
    "chosen by evaluate.calibration, predict.calibration, classify.calibration or a source tag of "
    "serve.calibrations. Figures are cross-validated. It is refused where rows are too few, or "
    "the log loss does not clearly fall, unless calibrate.force=true. A calibration that had the "
    "name before is kept.",
    result="name, id, model_version, temperature, biases (by label), threshold (1: the model "
    "abstains from every row), wanted_accuracy, rows, texts (rows, "
    "where near copies count as one), rows_by_label, before and after (macro_f1, "
    "accuracy, log_loss, ece, answered: value, interval; coverage), log_loss_difference, "
    "fitted_with (form of the model), exports (same_labels, same_abstentions of each kept form: "
    "shares of the rows), refusal (of one that was forced), previous (ids), file, run_dir, seconds",
    sections=("calibrate", "evaluate", "engine", "data", "registry", "storage", "run"),
    run=run,
    home="calibrate",
)

if __name__ == "__main__":
    main(JOB)
