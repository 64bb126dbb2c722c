"""Answers of a version's exports under a calibration that was fitted with torch in fp32."""

from __future__ import annotations

import logging

import numpy as np
from scipy.special import log_softmax

from finsent.errors import InputError
from finsent.evaluation.metrics import Floats
from finsent.inference.engine import Engine, softmax
from finsent.inference.export_record import read_exports
from finsent.modeling.domain_record import ExportAnswers

log = logging.getLogger(__name__)


def calibrated_logits(engine: Engine, texts: list[str]) -> Floats:
    """Return logits of the version's calibrated probabilities, shape (rows, labels).

    The log is taken before rounding to fp32, so that a probability of 0 in fp32 has a logit.
    """
    logits = engine.logits(texts).astype(np.float64) / engine.own_calibration.temperature
    calibrated: Floats = log_softmax(logits, axis=1)
    return calibrated


def compare_exports(
    engine: Engine,
    texts: list[str],
    logits: Floats,
    temperature: float,
    biases: tuple[float, ...],
    threshold: float,
) -> dict[str, ExportAnswers]:
    """Compare labels and abstentions of each export with those of the engine.

    The service uses the fastest export. A threshold that was fitted on few rows may be close to the
    confidence of many.

    Args:
        engine: that the calibration was fitted with.
        logits: `calibrated_logits` of the engine.
        temperature, biases, threshold: of the calibration.

    Returns:
        Shares by name of the export. An export that this machine cannot run is logged, not listed.
    """
    expected = softmax(logits, temperature, biases)
    shares = {}
    for export in read_exports(engine.model_dir):
        settings = {"backend": export.backend, "precision": export.precision}
        try:
            export_engine = Engine(engine.model_dir, engine.config.replaced(**settings))
            answers = softmax(calibrated_logits(export_engine, texts), temperature, biases)
        except InputError as error:
            log.warning("calibrate: answers of %s are not compared: %s", export.name, error)
            continue
        abstains = [
            probabilities.max(1).astype(float) < threshold for probabilities in (expected, answers)
        ]
        shares[export.name] = ExportAnswers(
            same_labels=float((expected.argmax(1) == answers.argmax(1)).mean()),
            same_abstentions=float((abstains[0] == abstains[1]).mean()),
        )
    return shares
