"""Stored calibrations for domains: applied, replaced, damaged and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from finsent.errors import InputError
from finsent.evaluation.config import EvaluateConfig
from finsent.evaluation.domain_exports import calibrated_logits, compare_exports
from finsent.evaluation.domain_fit import Fit
from finsent.evaluation.domain_report import gain_lines
from finsent.evaluation.evaluate import evaluate as measure
from finsent.evaluation.pictures import trust_lines
from finsent.files import write_json
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine, apply_calibration, softmax
from finsent.labels import LABELS
from finsent.modeling.calibration import Calibration
from finsent.modeling.domain_calibration import (
    DomainCalibration,
)
from finsent.modeling.domain_record import ExportAnswers
from finsent.registry.calibrations import Calibrations
from tests.unit.models import TEXTS, domain_content, published, saved_model

BIASES = (-0.2, 1.3, -1.1)
ENGINE = EngineConfig(backend="torch", precision="fp32", threads=1)


def test_it_comes_after_the_versions_own_calibration() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (50, 3)).astype(np.float32)
    both = DomainCalibration.of(domain_content()).on(Calibration(temperature=1.7, threshold=0.3))
    own_log = np.log(softmax(logits, 1.7).astype(float))
    expected = Fit(2.0, BIASES, 0.8).probabilities(own_log)
    assert softmax(logits, both.temperature, both.biases) == pytest.approx(expected, abs=1e-5)
    assert (both.threshold, both.name) == (0.8, "tweets")


@pytest.mark.parametrize("own", [Calibration(), Calibration(1.7), Calibration(1.7, folded=2.0)])
def test_logits_that_are_shown_have_the_probabilities_as_softmax(own: Calibration) -> None:
    logits = np.random.default_rng(0).normal(0, 4, (50, 3)).astype(np.float32)
    for used in (own, DomainCalibration.of(domain_content()).on(own)):
        expected = softmax(logits, used.temperature, used.biases)
        assert softmax(apply_calibration(logits, used), 1.0) == pytest.approx(expected, abs=1e-5)


def test_a_replaced_calibration_is_kept(tmp_path: Path) -> None:
    store = Calibrations(tmp_path, "0123456789ab")
    first_calibration = store.publish(DomainCalibration.of(domain_content()))
    assert store.get("tweets", "x") == first_calibration
    assert (
        store.publish(DomainCalibration.of(domain_content())) == first_calibration
    )  # the same stays
    second = store.publish(DomainCalibration.of(domain_content(temperature=3.0)))
    assert (second.previous, store.names()) == ((first_calibration.id,), ["tweets"])
    assert store.get("tweets", "x").temperature == 3.0
    previous = store.folder / "previous" / f"tweets-{first_calibration.id}.json"
    assert json.loads(previous.read_text())["temperature"] == 2.0
    assert not store.path("tweets").stat().st_mode & 0o222


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"temperature": 1.5}, "is not the digest"),
        ({"temperature": -1}, "greater than 0"),
        ({"biases": dict.fromkeys(LABELS, 1.0)}, "do not sum to 0"),
        ({"schema_version": 2}, "schema_version"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    store = Calibrations(tmp_path, "0123456789ab")
    store.publish(DomainCalibration.of(domain_content()))
    path = store.path("tweets")
    content = json.loads(path.read_text()) | change
    path.unlink()
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"tweets.json: is damaged .*{problem}"):
        store.get("tweets", "x")


def test_a_calibration_of_another_version_is_refused(tmp_path: Path) -> None:
    store = Calibrations(tmp_path, "0123456789ab")
    store.publish(DomainCalibration.of(domain_content()))
    other = Calibrations(tmp_path, "ffffffffffff")
    store.folder.rename(other.folder)
    with pytest.raises(InputError, match="of model version 0123456789ab"):
        other.get("tweets", "x")
    with pytest.raises(InputError, match=r"evaluate.calibration='news': .*known: tweets"):
        other.get("news", "evaluate.calibration")


def test_a_domain_is_compared_with_the_models_own_calibration(tiny: Path, tmp_path: Path) -> None:
    model = saved_model(tiny, tmp_path / "model")
    rule = {"threshold": 0.1, "wanted_accuracy": 0.8}
    own = {"schema_version": 1, "temperature": 2.5, "abstention": rule}
    write_json(model / "calibration.json", own)
    columns = {"key": TEXTS, "text": TEXTS, "label": ["neutral"] * len(TEXTS)}
    config = EvaluateConfig(behavior=None, bootstrap=100)
    content = domain_content(threshold=1.0, threshold_reason="no threshold reaches 0.9")
    plain, adapted = (
        measure(Engine(model, ENGINE, domain=domain), pa.table(columns), None, None, config)
        for domain in (None, DomainCalibration.of(content))
    )
    calibration = adapted.calibration
    assert (calibration.name, calibration.biases) == ("tweets", content.biases)
    assert calibration.temperature == pytest.approx(2.0)
    for key in ("ece", "log_loss"):
        assert getattr(calibration, f"{key}_before") == getattr(plain, key)
        assert getattr(plain.calibration, f"{key}_after") == getattr(plain, key)
        assert getattr(calibration, f"{key}_after") == getattr(adapted, key) != getattr(plain, key)
    assert adapted.reliability_before == plain.reliability
    assert (plain.calibration.name, plain.calibration.temperature) == (None, 2.5)
    assert trust_lines(adapted)[1:] == [
        "calibration tweets, temperature 2.000, biases negative -0.20, neutral +1.30, positive "
        f"-1.10: ECE of these rows {plain.ece:.3f} by the model's own calibration, "
        f"{adapted.ece:.3f} by tweets",
        "abstains from every row: no threshold reaches 0.9",
    ]
    assert trust_lines(plain)[1].startswith("temperature 2.500: ECE of these rows ")


def test_kept_exports_are_compared_under_the_calibration(tiny: Path, tmp_path: Path) -> None:
    registry = published(tiny, tmp_path, EngineConfig(precision="fp32", threads=1))
    engine = Engine(registry.get("champion").path, ENGINE)
    logits = calibrated_logits(engine, TEXTS)
    answers_by_export = compare_exports(engine, TEXTS, logits, 2.0, BIASES, 0.6)
    assert answers_by_export["onnxruntime-fp32"] == ExportAnswers(same_labels=1, same_abstentions=1)
    # Other logits than the export's stand for an engine that answers otherwise.
    other = compare_exports(engine, TEXTS, logits[:, [1, 2, 0]], 1.0, (0, 0, 0), 0.0)
    assert other["onnxruntime-fp32"] == ExportAnswers(same_labels=0, same_abstentions=1)
    flat = compare_exports(engine, TEXTS, logits * 1e-9, 1.0, (0, 0, 0), 1 / 3 + 1e-3)
    assert flat["onnxruntime-fp32"].same_abstentions < 1
    lines = gain_lines(DomainCalibration.of(domain_content(exports=other)))
    words = "onnxruntime-fp32: label of 0.0% and abstention of 100.0% of the rows as torch-fp32"
    assert any(words in line for line in lines)
