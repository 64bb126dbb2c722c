"""Classifiers from elsewhere: they answer as plain transformers does, and say what they are."""

from __future__ import annotations

import asyncio
import csv
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from finsent.adoption.adopt import ForeignModel, adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.adoption.fidelity import check_same, difference
from finsent.config import load
from finsent.errors import InputError
from finsent.evaluation.compare import answers_of, compare
from finsent.evaluation.config import EvaluateConfig
from finsent.evaluation.evaluate import evaluate
from finsent.evaluation.metrics import Answers
from finsent.export.config import ExportConfig
from finsent.export.exporter import export_model
from finsent.files import read_json, sha256_file
from finsent.inference.config import EngineConfig
from finsent.inference.engine import Engine, softmax
from finsent.labels import LABELS
from finsent.metrics_record import StoredMetrics
from finsent.modeling.label_map import LABEL_MAP, LabelMap, make_label_map
from finsent.modeling.model_dir import fingerprint
from finsent.modeling.model_folder import find_model_folder
from finsent.registry.registry import Registry
from finsent.scoring.score import Scorer
from finsent.settings import Settings
from serve_app.auth import Keys
from serve_app.config import ServeConfig
from serve_app.http.app import build_app
from serve_app.service.service import Service
from tests.commands import check_refused, invoke_job
from tests.unit.foreign import ARCHITECTURES, classifier, edit_json, encoder, saved
from tests.unit.models import saved_model
from tests.unit.test_backbone import hub_cache as hub_cache
from tests.unit.test_backbone import snapshot
from tests.unit.test_diff import Row, write

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(6, "exports and measures")]

EXACT = EngineConfig(threads=1, backend="torch", precision="fp32")
# A tiny model with random weights loses more in int8 than one that was trained.
ANY = ExportConfig(openvino=False, max_f1_loss=1, min_same_labels=0, max_score_change=1)
STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
STARS_MAP = {
    "1 star": "negative",
    "2 stars": "negative",
    "3 stars": "neutral",
    "4 stars": "positive",
    "5 stars": "positive",
}
# The entity size keeps LUKE small; the others have no use for it.
SHORT = {"max_position_embeddings": 130, "pad_token_id": 1, "entity_emb_size": 8}
ORDER = ("Positive", "Negative", "Neutral")
TEXTS = [
    "Profit rose.",
    "The company cut its outlook after a weak spring, and the shares fell 8 %.",
    "The meeting is on 4 May.",
    "order " * 30,
]


def opened(folder: Path, **config: Any) -> ForeignModel:
    return open_foreign(
        str(folder),
        find_model_folder(str(folder), None, "SOURCE", ""),
        AdoptConfig.model_validate(config),
    )


def adopted(folder: Path, out: Path, **config: Any) -> tuple[ForeignModel, Engine]:
    foreign = opened(folder, **config)
    adopt(foreign, out)
    return foreign, Engine(out, EXACT)


def refusal(folder: Path, **config: Any) -> str:
    with pytest.raises(InputError) as caught:
        adopt(opened(folder, **config), folder.parent / "out")
    text = str(caught.value)
    assert "\n" not in text
    assert not (folder.parent / "out" / "provenance.json").exists()
    return text


def labeled() -> pa.Table:
    texts = [f"{text} {i}" for i in range(8) for text in TEXTS]
    labels = [LABELS[i % 3] for i in range(len(texts))]
    keys = [f"{i * 7:016x}" for i in range(len(texts))]
    return pa.table({"key": keys, "text": texts, "label": labels})


def plain(folder: Path, text: str) -> list[float]:
    """What plain transformers answers from a directory."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(text, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        found: list[float] = model(**inputs).logits.softmax(-1)[0].tolist()
    return found


# --- labels ---------------------------------------------------------------------------------------

logits_of_five = st.lists(
    st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5), min_size=1, max_size=4
)


@given(logits_of_five, st.lists(st.sampled_from(LABELS), min_size=5, max_size=5))
def test_folded_logits_are_those_of_summed_probabilities(
    logits: list[list[float]], targets: list[str]
) -> None:
    label_map = LabelMap(STARS, tuple(targets))
    source = np.array(logits, np.float32)
    probabilities = softmax(source, 1.0).astype(np.float64)
    found = softmax(label_map.fold(source), 1.0)
    for i, label in enumerate(LABELS):
        expected = probabilities[:, label_map.columns(label)].sum(1)
        assert found[:, i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])  # all that a calibration may find
def test_absent_label_has_no_probability_at_any_temperature(temperature: float) -> None:
    folded = LabelMap(("a", "b"), ("negative", "positive")).fold(
        np.array([[-30.0, 30.0], [0.0, 0.0]], np.float32)
    )
    assert np.isfinite(folded).all()
    assert (softmax(folded, temperature)[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("labels", "label_map", "words"),
    [
        (STARS, {}, ["does not map '1 star', '2 stars'", "label_map={'1 star': LABEL"]),
        (("LABEL_0", "LABEL_1", "LABEL_2"), {}, ["'LABEL_0'", "each LABEL one of negative,"]),
        (("positive", "mixed"), {}, ["does not map 'mixed'"]),
        (ORDER, {"bullish": "positive"}, ["no label 'bullish'", "Positive, Negative, Neutral"]),
    ],
)
def test_labels_without_a_meaning_are_refused(
    tiny: Path, tmp_path: Path, labels: Sequence[str], label_map: dict[str, str], words: list[str]
) -> None:
    folder = saved(classifier(labels=labels), tmp_path / "source", tiny)
    text = refusal(folder, label_map=label_map)
    assert text.startswith("adopt.label_map={")
    assert all(word in text for word in words), text


def test_labels_that_yaml_reads_as_truths_are_mapped() -> None:
    config = load(Settings, [], ["adopt.label_map={yes: positive, no: negative}"])
    found = make_label_map(("No", "Neutral", "YES"), config.adopt.label_map)
    assert found.pairs == {"No": "negative", "Neutral": "neutral", "YES": "positive"}
    with pytest.raises(InputError, match="no label 'true'"):
        make_label_map(("No", "Neutral"), config.adopt.label_map)


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
    exports = {one.name: one for one in export_model(engine.model_dir, rows, ANY, EXACT, {})}
    assert exports["onnxruntime-fp32"].refused is None
    assert exports["onnxruntime-fp32"].max_difference < 1e-5
    registry = Registry(tmp_path / "registry")
    version = registry.publish(engine.model_dir, StoredMetrics(), {})
    registry.promote(version.version, "theirs")
    for found, expected in zip(served(registry, "theirs", TEXTS), answers, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


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
        one, two, three, four, five = plain(tmp_path / "model", text)
        expected = {"negative": one + two, "neutral": three, "positive": four + five}
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


# --- weights and tokenizers -----------------------------------------------------------------------


@pytest.mark.parametrize("layout", [{"shard": "100KB"}, {"pickled": True}])
def test_each_layout_of_weights_is_adopted(
    tiny: Path, tmp_path: Path, layout: dict[str, Any]
) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny, **layout)
    foreign, engine = adopted(folder, tmp_path / "model")
    assert difference(engine, foreign) < 1e-5
    files = {file.name for file in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in files
    assert not [name for name in files if name.endswith(".bin")]


def test_half_precision_is_adopted_in_fp32(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier().half(), tmp_path / "source", tiny)
    assert read_json(folder / "config.json")["dtype"] == "float16"
    foreign, engine = adopted(folder, tmp_path / "model")
    assert difference(engine, foreign) < 1e-5
    assert read_json(tmp_path / "model" / "config.json")["dtype"] == "float32"


def test_other_answers_than_transformers_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(labels=ORDER), tmp_path / "source", tiny)
    foreign, _ = adopted(folder, tmp_path / "model")
    other = saved(classifier(seed=5), tmp_path / "other", tiny)
    adopt(opened(other), tmp_path / "model")
    with pytest.raises(InputError, match=r"differs by .* from plain transformers"):
        check_same(Engine(tmp_path / "model", EXACT), foreign, 1e-5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"problem_type": "multi_label_classification"}, ["multi_label_classification, not one"]),
        ({"id2label": {"0": "score"}, "label2id": {"score": 0}}, ["answers one number"]),
        ({"id2label": {"0": "up", "1": "up", "2": "down"}}, ["does not name each label once"]),
        ({"model_type": "none-such"}, ["its config.json cannot be used"]),
        ({"pad_token_id": None}, ["config.json has no pad_token_id"]),
        ({"vocab_size": 1999}, ["with id 1999, but the model embeds 1999 tokens"]),
        ({"num_hidden_layers": 3}, ["its weights lack bert.encoder.layer.2."]),
        ({"hidden_size": 64}, ["its weights have another shape for"]),
    ],
)
def test_what_cannot_be_one_label_per_text_is_refused(
    tiny: Path, tmp_path: Path, changed: dict[str, Any], words: list[str]
) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny)
    edit_json(folder / "config.json", **changed)
    text = refusal(folder)
    assert all(word in text for word in words), text


def test_encoder_is_no_classifier(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "source", tiny)
    edit_json(folder / "config.json", id2label=dict(enumerate(LABELS)))
    text = refusal(folder)
    assert "has no classification head (classifier.weight is missing): an encoder" in text
    assert f"model.backbone={folder}" in text


def test_pickled_code_is_refused(tiny: Path, tmp_path: Path) -> None:
    model = classifier()
    weights: dict[str, Any] = {**model.state_dict(), "more": Path("an object")}
    folder = saved(model, tmp_path / "source", tiny, pickled=True, weights=weights)
    assert f"SOURCE={str(folder)!r}: its .bin file holds code or objects" in refusal(folder)


def test_code_of_a_model_never_runs_and_is_not_referred_to(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny)
    ran = tmp_path / "ran"
    (folder / "theirs.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    references = {"AutoConfig": "theirs.C", "AutoModelForSequenceClassification": "theirs.M"}
    edit_json(folder / "config.json", auto_map=references)
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "theirs.T"]})
    foreign, engine = adopted(folder, tmp_path / "model")
    assert difference(engine, foreign) < 1e-5
    assert not ran.exists()
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in read_json(tmp_path / "model" / name)
    assert not (tmp_path / "model" / "theirs.py").exists()


def test_weights_that_change_nothing_are_named(tiny: Path, tmp_path: Path) -> None:
    model = classifier()
    weights = {**model.state_dict(), "second_head.weight": torch.ones(2, 2)}
    folder = saved(model, tmp_path / "source", tiny, weights=weights)
    notes = adopt(opened(folder, license="mit"), tmp_path / "model")
    assert len(notes) == 1
    assert "ignored: second_head.weight" in notes[0]


def test_cased_tokenizer_stays_cased(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = BertNormalizer(lowercase=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    foreign = opened(folder)
    notes = adopt(foreign, tmp_path / "model")
    assert "tokenizer.json is kept: 'Nokia Sales ROSE" in notes[0]
    engine = Engine(tmp_path / "model", EXACT)
    assert engine.encode(["PROFIT"])[0].ids == tokenizer.encode("PROFIT").ids
    assert difference(engine, foreign) < 1e-5
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        ids = torch.tensor([tokenizer.encode("PROFIT rose").ids])
        expected = model(input_ids=ids).logits.softmax(-1)[0].tolist()
    assert plain(tmp_path / "model", "PROFIT rose") == pytest.approx(expected, abs=1e-6)


def test_left_cut_is_said_and_available(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny)
    edit_json(folder / "tokenizer_config.json", truncation_side="left")
    foreign = opened(folder, max_length=16)
    notes = adopt(foreign, tmp_path / "model")
    assert "set engine.truncate=left" in notes[0]
    assert difference(Engine(tmp_path / "model", EXACT), foreign) < 1e-5
    left = Engine(tmp_path / "model", EXACT.replaced(truncate="left"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = TEXTS[3] + "loss"
    expected = tokenizer(text, truncation=True, max_length=16).input_ids
    assert left.encode([text])[0].ids == expected


# --- hub ------------------------------------------------------------------------------------------


def test_hub_id_brings_commit_and_license(tiny: Path, tmp_path: Path, hub_cache: Path) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny, pickled=True)
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    commit = snapshot(hub_cache, "someone", "finbert", folder).name
    found = find_model_folder("someone/finbert", None, "SOURCE", "")
    foreign = open_foreign("someone/finbert", found, AdoptConfig())
    adopt(foreign, tmp_path / "model")
    origin = read_json(tmp_path / "model" / "provenance.json")["origin"]
    assert (origin["revision"], origin["license"]) == (commit, "cc-by-nc-4.0")
    digests = {file["path"]: file["sha256"] for file in origin["files"]}
    assert digests["pytorch_model.bin"] == sha256_file(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "card", ["", "# No head", "---\nlicense", "---\n[\n---\n", "---\n- a\n---\n", "---\nx: 1\n---"]
)
def test_license_is_unknown_rather_than_guessed(tiny: Path, tmp_path: Path, card: str) -> None:
    folder = saved(classifier(), tmp_path / "source", tiny)
    (folder / "README.md").write_text(card)
    foreign = opened(folder)
    assert foreign.license is None
    assert "its license is unknown; set adopt.license" in adopt(foreign, tmp_path / "model")[0]


# --- the job --------------------------------------------------------------------------------------


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    """A labeled file."""
    words = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}
    rows = [(f"Unit {i}: {words[LABELS[i % 3]]} in {1990 + i}", LABELS[i % 3]) for i in range(240)]
    file = tmp_path / "gold.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([("Sentence", "Sentiment"), *rows])
    return file


QUICK = (
    "export.openvino=false",
    "export.max_f1_loss=1",
    "export.min_same_labels=0.0001",
    "export.min_same_abstentions=0.0001",
    "export.max_score_change=1",
    "evaluate.behavior=null",
    "evaluate.bootstrap=100",
    "engine.threads=1",
)


def run(job: str, *arguments: str) -> dict[str, Any]:
    finished = invoke_job(job, *QUICK, *arguments)
    assert finished.code == 0, finished.err
    return finished.result


@pytest.mark.cost(15, "eight jobs")
def test_adopted_model_is_measured_compared_exported_and_served_as_any_version(
    tiny: Path, project: Path, gold: Path
) -> None:
    saved(classifier(labels=STARS), project / "stars", tiny)
    (project / "stars/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    saved(classifier(seed=4), project / "own", tiny)
    write(
        project / "artifacts/datasets/default/0123456789ab",
        [
            Row(f"{split} {i}", LABELS[i % 3], split)
            for split in ("train", "validation", "test")
            for i in range(60)
        ],
    )
    label_map = "label_map={" + ", ".join(f"{k}: {v}" for k, v in STARS_MAP.items()) + "}"
    sources = f'adopt.sources=["{gold}"]'
    adopted = invoke_job(
        "adopt", *QUICK, "stars", "name=theirs", label_map, sources, "run.name=theirs"
    )
    assert adopted.code == 0, adopted.err
    theirs = adopted.result
    for line in ("trained on: not known how many", "ECE of these rows", "never abstains: "):
        assert line in adopted.err  # as `evaluate` logs
    assert theirs["max_difference"] <= 1e-5
    assert theirs["exports"]["onnxruntime-fp32"]["refused"] is None
    calibration = read_json(Path(theirs["version_dir"]) / "calibration.json")
    assert calibration["sources"] == ["gold.csv"]
    assert calibration["temperature"] == 1
    assert calibration["folded_temperature"] == theirs["temperature"]
    measured = read_json(project / "artifacts/runs/theirs/evaluation/metrics.json")
    assert calibration["rows"] + measured["rows"] == 240  # each row once
    assert measured["macro_f1"] == theirs["macro_f1"]
    assert measured["model_version"] == theirs["model_version"]
    assert measured["sources"] == [str(gold)]
    own = run("adopt", "own", "name=own", "adopt.license=mit", "adopt.export=false")
    assert (own["macro_f1"], own["temperature"], own["exports"]) == (None, None, {})

    shown = run("registry", "show", "theirs")["manifest"]
    assert shown["origin"]["license"] == "apache-2.0"
    assert shown["origin"]["label_map"] == STARS_MAP
    listed = run("registry", "list")
    assert [model["macro_f1"] for model in listed["models"]] == [theirs["macro_f1"], None]
    assert not [model for model in listed["models"] if model.get("damaged")]
    card = (Path(theirs["version_dir"]) / "README.md").read_text()
    for part in (
        "license: apache-2.0",
        "| `5 stars` | positive |",
        "Adopted from `stars`",
        f"not calibrated on ({measured['rows']} rows)",
    ):
        assert part in card
    assert "Not measured" in (Path(own["version_dir"]) / "README.md").read_text()

    data = ("data.name=default",)
    assert (
        run("evaluate", *data, "evaluate.model=alias:theirs")["dataset_version"] == "0123456789ab"
    )
    compared = run("compare", *data, "alias:theirs", "own")
    assert compared["rows"] == 60
    assert compared["seen_in_training"] == {"a": None, "b": None}
    again = run("export", *data, "model=theirs")
    assert again["exports"]["onnxruntime-fp32"]["refused"] is None
    answers = run("classify", "classify.model=alias:theirs", "Profit rose.")["predictions"]
    assert answers[0]["label"] in LABELS
    promoted = invoke_job("registry", *QUICK, *data, "promote", "own", "champion")
    assert promoted.code == 0, promoted.err
    challenged = invoke_job("registry", *QUICK, *data, "promote", "theirs", "champion")
    check_refused(challenged, ["cannot tell whether", "60 rows", "publish.min_rows"])
    forced = run(
        "adopt",
        "stars",
        "name=champion",
        label_map,
        "run.name=forced",
        *data,
        "adopt.export=false",
        "publish.force=true",
    )
    assert (forced["gate"]["outcome"], forced["gate"]["forced"]) == ("cannot tell", True)
    assert [split["split_of"] for split in forced["gate"]["splits"]] == ["neither"]
    assert (project / "artifacts/runs/forced/model/model.safetensors").is_file()
    assert (project / "artifacts/runs/forced/comparison/comparison.json").is_file()


def test_adopting_a_model_of_ours_keeps_what_it_was_trained_on(tiny: Path, project: Path) -> None:
    rows = [Row(f"Profit rose {i}.", LABELS[i % 3], "train") for i in range(200)]
    dataset = {"name": "default", "version": "0123456789ab", "rows": len(rows)}
    write(project / "artifacts/datasets/default/0123456789ab", rows)
    saved_model(tiny, project / "ours", dataset=dataset)
    lines = [f"{row.text},{row.label}" for row in rows]
    (project / "seen.csv").write_text("\n".join(["Sentence,Sentiment", *lines]))
    adopted = run(
        "adopt", "ours", "run.name=mine", "adopt.export=false", "adopt.sources=[seen.csv]"
    )
    version = Path(adopted["version_dir"])
    assert read_json(version / "provenance.json")["dataset"] == dataset
    found = read_json(project / "artifacts/runs/mine/evaluation/metrics.json")
    assert (found["overlap"]["near_copies"], found["overlap"]["reason"]) == (found["rows"], None)
    card = (version / "README.md").read_text()
    assert "Dataset `default`, version `0123456789ab`" in card
    assert "model-index" not in card  # it was measured on other rows than the dataset's test split


@pytest.mark.parametrize(
    "dataset", [None, "news", {}, {"name": "..", "version": "1"}, {"name": "a/b", "version": "1"}]
)
def test_provenance_of_another_tool_names_no_dataset(
    tiny: Path, tmp_path: Path, dataset: object
) -> None:
    theirs = saved_model(tiny, tmp_path / "theirs")
    edit_json(theirs / "provenance.json", dataset=dataset)
    adopted(tmp_path / "theirs", tmp_path / "model")
    assert read_json(tmp_path / "model/provenance.json")["dataset"] is None


def test_adopting_again_under_a_name_leaves_the_published_version_whole(
    tiny: Path, project: Path
) -> None:
    saved(classifier(hidden_size=160), project / "one", tiny)  # large enough to be linked
    saved(classifier(hidden_size=160, seed=8), project / "other", tiny)
    quick = ("adopt.export=false", "run.name=mine")
    first = run("adopt", "one", *quick)
    file = project / "artifacts/runs/mine/model/model.safetensors"
    assert file.stat().st_nlink > 1
    second = run("adopt", "other", *quick)
    assert first["model_version"] != second["model_version"]
    registry = Registry(project / "artifacts/registry")
    registry.get(first["model_version"])  # verifies each file
    registry.get(second["model_version"])


def test_model_that_the_gate_refuses_keeps_its_result(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "one", tiny)
    saved(classifier(seed=8), project / "other", tiny)
    quick = ("adopt.export=false", "name=champion", "run.name=mine")
    first = run("adopt", "one", *quick)
    refused = invoke_job("adopt", *QUICK, "other", *quick)
    check_refused(refused, ["alias 'champion': cannot tell whether the model is inferior"])
    result = read_json(project / "artifacts/runs/mine/result.json")
    assert (result["source"], result["model_version"], result["gate"]) == ("other", None, None)
    assert result["refused"].startswith("alias 'champion': cannot tell")
    assert (project / "artifacts/runs/mine/model/model.safetensors").is_file()
    assert Registry(project / "artifacts/registry").aliases()["champion"] == first["model_version"]


def test_few_labeled_rows_neither_calibrate_nor_measure(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "one", tiny)
    (project / "few.csv").write_text("Sentence,Sentiment\nProfit rose,positive\nFlat,neutral\n")
    refused = invoke_job("adopt", *QUICK, "one", "adopt.sources=[few.csv]")
    check_refused(refused, ["adopt.sources=['", "few.csv']", "too few; 50 of each", "leave"])


def test_refused_model_is_left_to_no_job(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "one", tiny)
    refused = invoke_job("adopt", *QUICK, "one", "run.name=mine", "adopt.max_difference=1e-30")
    check_refused(refused, ["SOURCE='one'", "differs by", "adopt.max_difference"])
    check_refused(invoke_job("evaluate", "evaluate.model=mine"), ["neither a run"])


def test_model_whose_check_is_interrupted_is_left_to_no_job(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> float:
        raise KeyboardInterrupt

    saved(classifier(), project / "one", tiny)
    with monkeypatch.context() as patched:
        patched.setattr("finsent.adoption.steps.check_same", interrupt)
        with suppress(KeyboardInterrupt):
            assert invoke_job("adopt", *QUICK, "one", "run.name=mine").code not in (0, 2)
    assert not [*(project / "artifacts/runs/mine").rglob("*.safetensors")]
    check_refused(invoke_job("evaluate", "evaluate.model=mine"), ["neither a run"])


def test_adopted_run_is_not_the_latest_training(tiny: Path, project: Path) -> None:
    saved(classifier(), project / "one", tiny)
    run("adopt", "one", "adopt.export=false")
    check_refused(invoke_job("evaluate", "evaluate.model=latest"), ["no trained model"])


def test_adopting_what_finsent_wrote_gives_the_same_answers(tiny: Path, project: Path) -> None:
    folder = saved(classifier(labels=STARS), project / "stars", tiny)
    adopt(opened(folder, label_map=STARS_MAP), project / "first")
    shutil.copyfile(project / "first/provenance.json", project / "first/calibration.json")
    foreign = opened(project / "first")  # its label map is known
    notes = adopt(foreign, project / "second")
    assert any("its calibration.json is left out" in note for note in notes)
    answers = [Engine(project / name, EXACT).probabilities(TEXTS) for name in ("second",)]
    (project / "first/calibration.json").unlink()
    assert answers[0] == pytest.approx(Engine(project / "first", EXACT).probabilities(TEXTS))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["adopt ''", "Write one SOURCE"]),
        (["a", "b"], ["adopt 'a b'"]),
        (["./none"], ["SOURCE='./none': no such directory"]),
        (["no/such/model"], ["SOURCE='no/such/model': neither a directory nor a hub id"]),
        (["x", "name=Champion"], ["adopt.name='Champion'"]),
        (["x", "label_map={up: good}"], ["adopt.label_map.up='good'"]),
        (["empty"], ["SOURCE='empty': config.json, model.safetensors, tokenizer.json missing"]),
    ],
)
def test_bad_arguments_are_one_line(project: Path, arguments: list[str], words: list[str]) -> None:
    (project / "empty").mkdir()
    check_refused(invoke_job("adopt", *arguments), words)


def test_damaged_label_map_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(labels=STARS), tmp_path / "source", tiny)
    adopted(folder, tmp_path / "model", label_map=STARS_MAP)
    assert LABEL_MAP in fingerprint(tmp_path / "model")  # it decides the answers
    file = tmp_path / "model" / LABEL_MAP
    for content in ({}, {"schema_version": 1, "labels": {"1 star": "negative"}}, [1]):
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"label_map\.json"):
            Engine(tmp_path / "model", EXACT)


def test_another_s_label_map_is_not_read(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(labels=STARS), tmp_path / "source", tiny)
    (folder / LABEL_MAP).write_text('{"0": "1 star"}')
    assert "does not map" in refusal(folder)
    assert opened(folder, label_map=STARS_MAP).label_map.pairs == STARS_MAP
    (folder / "provenance.json").write_text("{}")  # as finsent writes
    assert LABEL_MAP in refusal(folder)
    assert opened(folder, label_map=STARS_MAP).label_map.pairs == STARS_MAP
