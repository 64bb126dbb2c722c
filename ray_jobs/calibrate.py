"""Fit a published model version to a domain by few labeled rows."""

from __future__ import annotations

import logging

from finsent.evaluation.results import CalibrateResult
from finsent.judging.evaluation_setup import EvaluationSetup
from finsent.registry.calibrations import Calibrations
from ray_jobs._cli import Call, Job, main, table_console

log = logging.getLogger(__name__)


def run(call: Call) -> CalibrateResult:
    """Fit, measure and publish the calibration of the section `calibrate`."""
    # scikit-learn, SciPy and tokenizers: two seconds that `finsent --help` does without.
    from finsent.evaluation.domain_report import gain_lines, gain_table, summary
    from finsent.judging.version_calibration import calibrate_version

    settings = call.settings
    calibration = calibrate_version(EvaluationSetup.of(settings), settings.calibrate)
    table_console().print(gain_table(calibration))
    for line in gain_lines(calibration):
        log.info("%s", line)
    name, version = calibration.name, calibration.model_version
    location = Calibrations(settings.workspace.registry, version).locate(name)
    log.info("calibration %s of model version %s: %s", name, version, location)
    return CalibrateResult(**vars(summary(calibration)), file=location)


JOB = Job(
    name="calibrate",
    summary="Fit a published model version to a domain by about 200 labeled rows: a "
    "temperature, a bias per label and an abstention threshold, which follow the version's own "
    "calibration. The version does not change: the calibration is published next to the version "
    "under calibrate.name. Choose a calibration by evaluate.calibration, predict.calibration, "
    "classify.calibration or a source tag of serve.calibrations. Figures are cross-validated. "
    "The job refuses too few rows, and a calibration whose log loss does not clearly fall, "
    "unless calibrate.force=true. An earlier calibration of the same name is kept.",
    result=CalibrateResult,
    sections=("calibrate", "evaluate", "engine", "data", "registry", "storage", "run"),
    run=run,
    home="calibrate",
)

if __name__ == "__main__":
    main(JOB)
