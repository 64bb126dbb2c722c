"""Adopted classifiers of many architectures answer as transformers does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient
from transformers import pipeline

from finsent.adoption.adopt import adopt
from finsent.adoption.fidelity import check_same
from finsent.evaluation.compare import answers_of, compare
from finsent.evaluation.config import EvaluateConfig
from finsent.evaluation.evaluate import evaluate
from finsent.evaluation.metrics import Answers
from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.metrics_record import StoredMetrics
from finsent.modeling.label_map import LABEL_MAP
from finsent.registry.registry import Registry
from finsent.scoring.score import Scorer
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.http.app import build_app
from serve_app.service.service import Service
from tests.unit.adoption import EXACT, ORDER, STARS, STARS_MAP, TEXTS, adopted, opened, plain
from tests.unit.foreign import ARCHITECTURES, classifier, edit_json, encoder, saved
from tests.unit.models import saved_model

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(6, "exports and measures")]


# A tiny model with random weights loses more in int8 than one that was trained.
ANY = ExportConfig(openvino=False, max_f1_loss=1, min_same_labels=0, max_score_change=1)


# The entity size keeps LUKE small; the others have no use for it.
SHORT = {"max_position_embeddings": 130, "pad_token_id": 1, "entity_emb_size": 8}


def labeled() -> pa.Table:
    texts = [f"{text} {i}" for i in range(8) for text in TEXTS]
    labels = [LABELS[i % 3] for i in range(len(texts))]
    keys = [f"{i * 7:016x}" for i in range(len(texts))]
    return pa.table({"key": keys, "text": texts, "label": labels})


# --- eight architectures --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tiny: Path) -> Answers:
    """What a model of our own answers to the labeled rows."""
    folder = tiny.parent / "own-model"
    if not folder.exists():
        saved_model(tiny, folder)
    return answers_of(Engine(folder, EXACT), labeled())


def served(registry: Registry, alias: str, texts: Sequence[str]) -> list[list[float]]:
    """Probabilities that the HTTP service answers, without Ray."""
    config = EngineConfig(threads=1, backend="onnxruntime", precision="fp32")
    service = Service(registry.root, ServeConfig(model=alias, watch_seconds=0), config)
    asyncio.run(service.models.follow())
    with TestClient(build_app(service, Keys(None))) as client:
        answers = [client.post("/predict", json={"text": text}).json() for text in texts]
    version = registry.aliases()[alias]
    assert {answer["model_version"] for answer in answers} == {version}
    return [[answer["probabilities"][label] for label in LABELS] for answer in answers]


@pytest.mark.parametrize(
    ("kind", "labels"), [*((kind, ORDER) for kind in ARCHITECTURES), ("roberta", STARS)]
)
def test_each_architecture_answers_as_transformers_does_and_is_used_as_any_version(
    tiny: Path, tmp_path: Path, own: Answers, kind: str, labels: Sequence[str]
) -> None:
    folder = saved(classifier(kind, labels), tmp_path / "source", tiny)
    foreign, engine = adopted(
        folder, tmp_path / "model", label_map=STARS_MAP if labels == STARS else {}
    )
    answers = engine.probabilities([*TEXTS])
    assert np.ptp(answers, axis=0).max() > 0.05  # answers differ from text to text
    assert check_same(engine, foreign, 1e-5) <= 1e-5
    rows, quick = labeled(), EvaluateConfig(behavior=None, bootstrap=100)
    measured = evaluate(engine, rows, None, None, quick)
    right = sum(
        label == mine.label
        for label, mine in zip(
            rows["label"].to_pylist(), engine.classify(rows["text"].to_pylist()), strict=True
        )
    )
    assert measured.accuracy == pytest.approx(right / len(rows))
    compared = compare(own, answers_of(engine, rows), 100, 0)
    assert compared.b.macro_f1 == pytest.approx(measured.macro_f1)
    assert compared.rows == len(rows)
    exports = {
        export.name: export for export in export_model(engine.model_dir, rows, ANY, EXACT, {})
    }
    assert exports["onnxruntime-fp32"].refused is None
    assert exports["onnxruntime-fp32"].max_difference < 1e-5
    registry = Registry(tmp_path / "registry")
    version = registry.publish(engine.model_dir, StoredMetrics(), {})
    registry.promote(version.version, "theirs")
    for probabilities, expected in zip(served(registry, "theirs", TEXTS), answers, strict=True):
        assert probabilities == pytest.approx(expected, abs=1e-5)


# --- what plain transformers reads from the published directory -----------------------------------


def test_reordered_labels_are_those_of_the_published_directory(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(labels=ORDER), tmp_path / "source", tiny)
    _, engine = adopted(folder, tmp_path / "model")
    assert not (tmp_path / "model" / LABEL_MAP).exists()
    for text in TEXTS:
        theirs = dict(zip((name.lower() for name in ORDER), plain(folder, text), strict=True))
        [mine] = engine.classify([text])
        assert mine.probabilities == pytest.approx(theirs, abs=1e-6)
        [piped] = pipeline("text-classification", str(tmp_path / "model"))(text, truncation=True)
        assert (piped["label"], piped["score"]) == (mine.label, pytest.approx(mine.score, abs=1e-6))


def test_many_labels_stay_in_the_directory_and_are_added_up_by_the_engine(
    tiny: Path, tmp_path: Path
) -> None:
    folder = saved(classifier(labels=STARS), tmp_path / "source", tiny)
    _, engine = adopted(folder, tmp_path / "model", label_map=STARS_MAP)
    for text in TEXTS:
        one_star, two_stars, three_stars, four_stars, five_stars = plain(tmp_path / "model", text)
        expected = {
            "negative": one_star + two_stars,
            "neutral": three_stars,
            "positive": four_stars + five_stars,
        }
        assert engine.classify([text])[0].probabilities == pytest.approx(expected, abs=1e-6)
        faults = pa.array([None], pa.string())
        row = pa.table({"row": pa.array([1]), "raw_text": [text], "fault": faults})
        [scored] = Scorer(engine, "a version")(row).to_pylist()
        for label, probability in expected.items():
            assert scored[f"probability_{label}"] == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_two_labels_never_answer_the_third_whatever_computes(
    tiny: Path, tmp_path: Path, kind: str
) -> None:
    folder = saved(classifier(kind, ("NEGATIVE", "POSITIVE")), tmp_path / "source", tiny)
    foreign = opened(folder)
    notes = adopt(foreign, tmp_path / "model")
    assert "the model never answers neutral: none of its labels is mapped onto that" in notes
    config = ANY.replaced(openvino=True)
    export_model(tmp_path / "model", labeled(), config, EXACT, {})
    for backend, precision in (
        ("torch", "fp32"),
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8"),
        ("openvino", "int8"),
    ):
        chosen = EngineConfig.model_validate(
            {"threads": 1, "backend": backend, "precision": precision}
        )
        assert (Engine(tmp_path / "model", chosen).probabilities(TEXTS)[:, 1] == 0).all()
    negative, neutral, positive = plain(tmp_path / "model", TEXTS[1])
    assert neutral == 0
    assert [negative, positive] == pytest.approx(plain(folder, TEXTS[1]), abs=1e-6)


def test_length_of_the_published_tokenizer_is_that_of_the_engine(
    tiny: Path, tmp_path: Path
) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny)
    _, engine = adopted(folder, tmp_path / "model", max_length=16)
    [mine] = engine.classify([TEXTS[3]])
    assert plain(tmp_path / "model", TEXTS[3]) == pytest.approx([*mine.probabilities.values()])


@pytest.mark.parametrize(
    ("kind", "shape", "tokens", "length"),
    [
        ("bert", {}, 512, 512),
        ("bert", {}, 64, 64),
        *(
            (kind, SHORT, 512, 128)
            for kind in ("roberta", "luke", "lilt", "markuplm", "layoutlmv3")
        ),
        ("modernbert", {"max_position_embeddings": 8192}, 8192, 512),
    ],
)
def test_longest_input_is_what_model_and_tokenizer_allow(
    tiny: Path, tmp_path: Path, kind: str, shape: dict[str, Any], tokens: int, length: int
) -> None:
    folder = saved(encoder(kind, **shape), tmp_path / "source", tiny)  # weights are not read
    edit_json(folder / "config.json", id2label=dict(enumerate(LABELS)))
    edit_json(folder / "tokenizer_config.json", model_max_length=tokens)
    assert opened(folder).max_length == length
