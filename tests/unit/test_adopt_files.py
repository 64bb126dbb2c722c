"""Weights, code and tokenizers of adopted classifiers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finsent.adoption.adopt import adopt
from finsent.adoption.fidelity import check_same, difference
from finsent.errors import InputError
from finsent.files import read_json
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from tests.unit.adoption import (
    EXACT,
    ORDER,
    STARS,
    STARS_MAP,
    TEXTS,
    adopted,
    opened,
    plain,
    refusal,
)
from tests.unit.foreign import classifier, edit_json, encoder, saved

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(6, "exports and measures")]


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
    assert "has no classification head (classifier.weight is missing), so it is an encoder" in text
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


# --- the job --------------------------------------------------------------------------------------


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
