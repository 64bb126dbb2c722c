"""Figures of probabilities that are not numbers are null in each file and result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finsent.evaluation.metrics import Answers
from finsent.evaluation.results import EvaluateResult
from finsent.metrics_record import METRICS_FILE, EvaluationMetrics
from ray_jobs._results import as_result
from tests.unit.evaluations import evaluation

UNDEFINED = {"log_loss": None, "brier": None, "ece": None}


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_figures_that_are_not_numbers_are_null(tmp_path: Path) -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [np.nan] * 3, [0.1, 0.2, 0.7]])
    scores = Answers(np.array([0, 1, 2]), probabilities).measure()
    origin = {"model_dir": "model", "model_version": None, "domain_calibration": None}
    rows: dict[str, object] = {"dataset_version": None, "split": None, "sources": []}
    metrics = evaluation(scores, **origin, **rows)
    result = as_result(EvaluateResult.of(metrics, tmp_path))
    assert UNDEFINED.items() <= json.loads(json.dumps(result, allow_nan=False)).items()
    metrics.write(tmp_path / METRICS_FILE)
    stored = EvaluationMetrics.read(tmp_path / METRICS_FILE)
    assert UNDEFINED.items() <= stored.headline.items()
    assert stored == metrics
