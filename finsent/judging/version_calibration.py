"""Calibrate a published model version for a domain, and publish the calibration."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pyarrow as pa

from finsent.errors import ConfigError, InputError
from finsent.evaluation.config import CalibrateConfig
from finsent.evaluation.domain import calibrate
from finsent.evaluation.evaluate import read_benchmark
from finsent.evaluation.held_out_rows import training_rows
from finsent.evaluation.training_overlap import Overlap, find_overlap
from finsent.inference.engine import Engine
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.judging.selection import source_names
from finsent.modeling.domain_calibration import DomainCalibration
from finsent.modeling.trained_on import read_trained_on
from finsent.registry.calibrations import Calibrations

log = logging.getLogger(__name__)


def calibrate_version(setup: EvaluationSetup, config: CalibrateConfig) -> DomainCalibration:
    """Fit, measure and publish a calibration. Needs no Ray.

    Raises:
        ConfigError: a name or sources are missing.
        InputError: the model or a file is unusable, rows are too few, or the calibration does not
            help.
    """
    if config.name is None:
        raise ConfigError("calibrate.name=null: name the calibration, e.g. calibrate.name=tweets")
    if not config.sources:
        raise ConfigError(
            "calibrate.sources=[]: name labeled files of the domain, e.g. "
            "calibrate.sources='[tweets.csv]'"
        )
    registry = setup.registry
    version = registry.get(config.model, "calibrate.model")
    engine = Engine(version.path, setup.engine.exact())
    rows = _unseen_rows(setup, config, engine)
    content = calibrate(
        engine,
        rows,
        version.version,
        source_names(config.sources),
        config,
        setup.evaluate,
        setup.data.near_duplicates,
    )
    return Calibrations(registry.location, version.version).publish(DomainCalibration.of(content))


def _unseen_rows(setup: EvaluationSetup, config: CalibrateConfig, engine: Engine) -> pa.Table:
    """Read the rows of the domain that the model was not trained on.

    Raises:
        InputError: no row remains, or a file is unusable.
    """
    cache = setup.workspace.sources_dir
    rows = read_benchmark(config.sources, setup.data, cache, "calibrate.sources")
    training = training_rows(setup.workspace, read_trained_on(engine.model_dir))
    overlap = find_overlap(rows, training, setup.data.near_duplicates)
    for line in _overlap_lines(overlap):
        log.info("calibrate: %s", line)
    if overlap.seen is not None:
        rows = rows.filter(pa.array(~overlap.seen))
    if not len(rows):
        raise InputError(
            f"calibrate.sources={[source.uri for source in config.sources]}: the model was trained "
            "on each of their rows, or on a near copy of it. Name files of other rows."
        )
    return rows


def _overlap_lines(overlap: Overlap) -> Iterator[str]:
    """Yield how many rows the model was trained on, or why the number is not known."""
    if overlap.exact is None:
        yield f"it is not known which of the rows the model was trained on ({overlap.reason})"
        return
    if overlap.exact.any():
        yield f"left out {overlap.exact.sum()} rows that the model was trained on"
    if overlap.near is None:
        yield f"it is not known which rows are near copies of training rows ({overlap.reason})"
    elif overlap.near.any():
        yield f"left out {overlap.near.sum()} near copies of rows that the model was trained on"
