"""The published directory answers plain transformers as it answers finsent."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from transformers import PreTrainedModel, pipeline

from benchmarks.synthetic import make_rows
from finsent.adoption.adopt import adopt
from finsent.evaluation.calibration import calibrate, fitted_temperature
from finsent.files import link_or_copy, read_json, sha256_file
from finsent.inference.encoder import normalize_texts
from finsent.inference.engine import Engine, softmax
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.classification_head import output_layer
from finsent.modeling.classifier import init_classifier
from finsent.modeling.folding import scaling_tensors
from finsent.modeling.model_dir import CALIBRATION, WEIGHTS
from tests.unit.adoption import EXACT, ORDER, STARS, STARS_MAP, opened
from tests.unit.foreign import ARCHITECTURES, OWN, classifier, saved

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(4, "8 architectures")]

ROWS = 200
SURE = 3.0  # times too sure


def sentences() -> list[str]:
    """Invented sentences, one of them too long for any model here."""
    texts = [text for text in make_rows(0, 260)["Sentence"].to_pylist() if text]
    return [*normalize_texts(texts)[: ROWS - 1], "order " * 600]


def too_sure(kind: str, labels: Sequence[str]) -> PreTrainedModel:
    """A classifier whose answers are spread, and whose logits are too large."""
    model = classifier(kind, labels)
    layer = output_layer(model)
    assert layer is not None
    with torch.no_grad():
        layer.weight.mul_(SURE)
        if layer.bias is not None:
            layer.bias.copy_(torch.linspace(-1, 1, len(labels)))
    return model


def adopted(model: PreTrainedModel, folder: Path, tiny: Path, **config: Any) -> Path:
    """Save and adopt a model, and return the directory of the adopted model."""
    adopt(opened(saved(model, folder / "source", tiny), **config), folder / "model")
    return folder / "model"


def labeled(model_dir: Path, texts: list[str]) -> pa.Table:
    """Rows whose labels are drawn at half the confidence of the model."""
    engine = Engine(model_dir, EXACT)
    shares = softmax(engine.logits(texts), 2.0).astype(np.float64)
    random = np.random.default_rng(0).random((len(texts), 1))
    ids = np.minimum((shares.cumsum(1) < random).sum(1), 2)
    return pa.table({"text": texts, "label": [LABELS[i] for i in ids]})


def piped(model_dir: Path, texts: list[str]) -> list[dict[str, float]]:
    """Scores by label, as plain transformers gives them in padded batches."""
    pipe = pipeline("text-classification", model=str(model_dir), device="cpu")
    rankings: Any = pipe(texts, truncation=True, top_k=None, batch_size=16)
    return [{item["label"]: item["score"] for item in row} for row in rankings]


def difference(model_dir: Path, texts: list[str]) -> float:
    """The largest difference of any probability, with the labels compared."""
    mine = Engine(model_dir, EXACT).classify(texts)
    worst = 0.0
    for theirs, own in zip(piped(model_dir, texts), mine, strict=True):
        assert next(iter(theirs)) == own.label
        worst = max(worst, *(abs(theirs[name] - own.probabilities[name]) for name in LABELS))
    return worst


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_plain_transformers_gives_the_calibrated_scores(
    tiny: Path, tmp_path: Path, kind: str
) -> None:
    texts = sentences()
    model_dir = adopted(too_sure(kind, ORDER), tmp_path, tiny)
    before = Engine(model_dir, EXACT)
    record = calibrate(before, labeled(model_dir, texts), 0.6, {"split": "validation"})
    after = Engine(model_dir, EXACT)
    assert record.temperature == after.temperature == 1
    assert after.folded == record.folded_temperature
    assert after.folded > 1.3
    answers = after.probabilities(texts)
    assert np.ptp(answers, axis=0).max() > 0.2
    expected = softmax(before.logits(texts), after.folded)
    assert answers == pytest.approx(expected, abs=1e-6)
    assert difference(model_dir, texts) < 1e-5


def test_real_texts_score_alike(tiny: Path, tmp_path: Path, shared_data: Path) -> None:
    with (shared_data / "financial-sentiment.csv").open(newline="", encoding="utf-8") as stream:
        texts = normalize_texts([row["Sentence"] for row in csv.DictReader(stream)][:ROWS])
    model_dir = adopted(too_sure("bert", OWN), tmp_path, tiny)
    calibrate(Engine(model_dir, EXACT), labeled(model_dir, texts), 0.6, {})
    assert difference(model_dir, texts) < 1e-5


def test_many_labels_add_up_to_ours_at_the_temperature(tiny: Path, tmp_path: Path) -> None:
    texts = sentences()
    model_dir = adopted(too_sure("bert", STARS), tmp_path, tiny, label_map=STARS_MAP)
    record = calibrate(Engine(model_dir, EXACT), labeled(model_dir, texts), 0.6, {})
    assert fitted_temperature(record) > 1.2
    after = Engine(model_dir, EXACT)
    mine = after.classify(texts)
    for theirs, own in zip(piped(model_dir, texts), mine, strict=True):
        sums = dict.fromkeys(LABELS, 0.0)
        for name, score in theirs.items():
            sums[STARS_MAP[name]] += score
        assert own.probabilities == pytest.approx(sums, abs=1e-5)


@pytest.mark.parametrize("labels", [("NEGATIVE", "POSITIVE"), OWN])
def test_calibrating_again_composes_and_never_drifts(
    tiny: Path, tmp_path: Path, labels: Sequence[str]
) -> None:
    texts = sentences()
    model_dir = adopted(too_sure("bert", labels), tmp_path, tiny)
    raw = Engine(model_dir, EXACT).logits(texts)
    rows = labeled(model_dir, texts)
    shifted = pa.array([*rows["label"].to_pylist()[1:], LABELS[0]])
    other = rows.set_column(1, "label", shifted)
    first_fit = calibrate(Engine(model_dir, EXACT), rows, 0.6, {})
    digest = sha256_file(model_dir / WEIGHTS)
    assert calibrate(Engine(model_dir, EXACT), rows, 0.6, {}) == first_fit
    assert sha256_file(model_dir / WEIGHTS) == digest
    for _ in range(5):  # there and back
        again = calibrate(Engine(model_dir, EXACT), other, 0.6, {})
        last = calibrate(Engine(model_dir, EXACT), rows, 0.6, {})
    assert fitted_temperature(again) != pytest.approx(fitted_temperature(first_fit), rel=0.05)
    assert fitted_temperature(last) == pytest.approx(fitted_temperature(first_fit), rel=1e-3)
    after = Engine(model_dir, EXACT)
    assert after.uncalibrated(after.logits(texts)) == pytest.approx(raw, rel=1e-4, abs=1e-4)
    if len(labels) == 2:
        assert (after.probabilities(texts)[:, 1] == 0).all()
        assert after.logits(texts)[:, 1] == pytest.approx(raw[:, 1])  # still never answered


def test_published_copy_keeps_its_weights(tiny: Path, tmp_path: Path) -> None:
    texts = sentences()
    model_dir = adopted(too_sure("bert", OWN), tmp_path, tiny)
    link_or_copy(model_dir / WEIGHTS, tmp_path / "published")
    digest = sha256_file(tmp_path / "published")
    calibrate(Engine(model_dir, EXACT), labeled(model_dir, texts), 0.6, {})
    assert sha256_file(tmp_path / "published") == digest != sha256_file(model_dir / WEIGHTS)
    with safe_open(model_dir / WEIGHTS, "pt") as file:
        assert file.metadata()["format"] == "pt"
    assert not [*model_dir.glob(".staging*")]


def test_interrupted_calibration_leaves_a_model_that_is_not_calibrated_twice(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = sentences()
    model_dir = adopted(too_sure("bert", OWN), tmp_path, tiny)
    rows = labeled(model_dir, texts)
    with monkeypatch.context() as patched:
        patched.setattr("finsent.records.write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            calibrate(Engine(model_dir, EXACT), rows, 0.6, {})
    assert not (model_dir / CALIBRATION).exists()
    record = calibrate(Engine(model_dir, EXACT), rows, 0.6, {})
    uninterrupted = adopted(too_sure("bert", OWN), tmp_path / "whole", tiny)
    expected = calibrate(Engine(uninterrupted, EXACT), rows, 0.6, {})
    assert fitted_temperature(record) == pytest.approx(fitted_temperature(expected), rel=1e-4)
    answers = [Engine(folder, EXACT).probabilities(texts) for folder in (model_dir, uninterrupted)]
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_head_whose_layer_does_not_scale_the_logits_keeps_the_temperature_outside(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import BertForSequenceClassification

    class WithCap(BertForSequenceClassification):
        def forward(self, *arguments: Any, **options: Any) -> Any:
            calibration = super().forward(*arguments, **options)
            calibration.logits = 3 * torch.tanh(calibration.logits / 3)
            return calibration

    texts = sentences()
    model_dir = adopted(too_sure("bert", OWN), tmp_path, tiny)
    digest = sha256_file(model_dir / WEIGHTS)
    assert scaling_tensors(model_dir, [[2, 5, 3]]) == ["classifier.weight", "classifier.bias"]
    with monkeypatch.context() as patched:
        load = WithCap.from_pretrained
        patched.setattr(
            "finsent.modeling.classifier.AutoModelForSequenceClassification.from_pretrained", load
        )
        assert scaling_tensors(model_dir, [[2, 5, 3]]) == []
        rows = labeled(model_dir, texts)
        calibration = calibrate(Engine(model_dir, EXACT), rows, 0.6, {})
        after = Engine(model_dir, EXACT)
        assert after.temperature == calibration.temperature == fitted_temperature(calibration) > 1.3
        expected = softmax(after.logits(texts), after.temperature)
        assert after.probabilities(texts) == pytest.approx(expected)
    assert sha256_file(model_dir / WEIGHTS) == digest
    assert "no single layer scales its logits" in caplog.text


def test_fine_tuning_begins_at_the_published_head(tiny: Path, tmp_path: Path) -> None:
    texts = sentences()
    model_dir = adopted(too_sure("bert", OWN), tmp_path, tiny)
    calibrate(Engine(model_dir, EXACT), labeled(model_dir, texts), 0.6, {})
    model, notes = init_classifier(Backbone(str(model_dir), str(model_dir)), 0)
    model.save_pretrained(tmp_path / "next")
    assert notes == []
    layer = output_layer(model)
    assert layer is not None
    with safe_open(model_dir / WEIGHTS, "pt") as file:
        assert torch.equal(layer.weight, file.get_tensor("classifier.weight"))
    with safe_open(tmp_path / "next" / WEIGHTS, "pt") as file:
        assert "finsent.folded_temperature" not in file.metadata()  # they are its own now
    assert read_json(tmp_path / "next" / "config.json")["problem_type"] == (
        "single_label_classification"
    )
