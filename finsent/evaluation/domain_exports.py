"""How the exports of a version answer under a calibration that was fitted on torch in fp32."""

from __future__ import annotations

import logging

import numpy as np
from scipy.special import log_softmax

from finsent.errors import InputError
from finsent.evaluation.metrics import Floats
from finsent.inference.engine import Engine, softmax
from finsent.inference.export_record import read_exports
from finsent.modeling.domain_calibration import ExportAnswers

log = logging.getLogger(__name__)


def calibrated_logits(engine: Engine, texts: list[str]) -> Floats:
    """Return logits of the version's calibrated probabilities, shape (rows, labels).

    Probabilities that are 0 in fp32 have a logit: the log is taken before.
    """
    logits = engine.logits(texts).astype(np.float64) / engine.own_calibration.temperature
    found: Floats = log_softmax(logits, axis=1)
    return found


def compare_exports(
    engine: Engine,
    texts: list[str],
    logits: Floats,
    temperature: float,
    biases: tuple[float, ...],
    threshold: float,
) -> dict[str, ExportAnswers]:
    """Compare labels and abstentions of each kept export with those of the engine.

    The service uses the fastest form, and an abstention threshold of few rows may be near many.

    Args:
        engine: that the calibration was fitted with.
        logits: `calibrated_logits` of the engine.
        temperature, biases, threshold: of the calibration.

    Returns:
        By the export's name; one that cannot be computed here is logged and left out.
    """
    expected = softmax(logits, temperature, biases)
    found = {}
    for export in read_exports(engine.model_dir):
        form = {"backend": export.backend, "precision": export.precision}
        try:
            other = Engine(engine.model_dir, engine.config.replaced(**form))
            answers = softmax(calibrated_logits(other, texts), temperature, biases)
        except InputError as error:
            log.warning("calibrate: answers of %s are not compared: %s", export.name, error)
            continue
        abstains = [one.max(1).astype(float) < threshold for one in (expected, answers)]
        found[export.name] = ExportAnswers(
            same_labels=float((expected.argmax(1) == answers.argmax(1)).mean()),
            same_abstentions=float((abstains[0] == abstains[1]).mean()),
        )
    return found
