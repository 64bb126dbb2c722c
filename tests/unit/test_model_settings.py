"""Settings in model directories: labels, code, padding, lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from finsent.adoption.adopt import adopt, open_foreign
from finsent.adoption.config import AdoptConfig
from finsent.adoption.fidelity import check_same, difference
from finsent.errors import InputError
from finsent.files import read_json
from finsent.inference.engine import Engine
from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import (
    load_tokenizer,
    new_classifier,
    save_classifier,
)
from finsent.modeling.compatibility import check_padding
from finsent.modeling.model_folder import find_model_folder
from finsent.modeling.provenance import Provenance
from finsent.modeling.tokenizer import read_tokenizer
from tests.unit.adoption import EXACT
from tests.unit.foreign import classifier, edit_json, saved
from tests.unit.model_uses import adopt_it, refusals, train_it

pytestmark = [pytest.mark.cost(1.0, "builds models"), pytest.mark.usefixtures("one_thread")]


# --- configs --------------------------------------------------------------------------------------


def test_labels_in_two_orders_are_refused_and_no_head_is_reordered_by_them(
    tiny: Path, tmp_path: Path
) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", label2id={"negative": 2, "neutral": 1, "positive": 0})
    message = "'negative' is 0 in id2label and 2 in label2id"
    with pytest.raises(InputError, match=message):
        adopt_it(folder)
    [note] = train_it(folder)
    assert "the head's output layer is new" in note and message in note


def test_ids_of_labels_that_have_no_name_say_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", label2id={"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2})
    assert (adopt_it(folder), train_it(folder)) == ([], [])


@pytest.mark.parametrize("labels", [["negative", "neutral", "positive"], {"0": "up", "x": "down"}])
def test_labels_in_no_map_are_one_line(tiny: Path, tmp_path: Path, labels: Any) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", id2label=labels)
    for text in refusals(folder):
        assert text.startswith("its config.json cannot be used (")


def test_head_of_more_outputs_than_labels_says_both(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", id2label={"0": "negative", "1": "positive"}, label2id={})
    with pytest.raises(InputError, match=r"3 outputs, but config.json names 2 labels \(negative,"):
        adopt_it(folder)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_classifier_of_words_is_refused_though_its_head_fits(
    tiny: Path, tmp_path: Path, kind: str
) -> None:
    words = AutoModelForTokenClassification.from_config(classifier(kind).config)
    folder = saved(words, tmp_path / "mine", tiny)
    with pytest.raises(InputError, match=r"is a \w+ForTokenClassification .* not label texts"):
        adopt_it(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"architectures": ["BertWithMeanPooling"]},
        {"auto_map": {"AutoModelForSequenceClassification": "someone/else--theirs.M"}},
    ],
)
def test_code_that_would_answer_otherwise_is_named(
    tiny: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", **changed)
    [note] = adopt_it(folder)
    assert "does not run here: the answers are those of transformers' BertForSeq" in note


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("bert", {"return_dict": False}),
        ("bert", {"output_attentions": True, "output_hidden_states": True}),
        ("bert", {"chunk_size_feed_forward": 8}),
        ("modernbert", {"attn_implementation": "flash_attention_2", "reference_compile": True}),
        ("modernbert", {"_attn_implementation": "flash_attention_2"}),
    ],
)
def test_settings_of_other_programs_change_no_answer(
    tiny: Path, tmp_path: Path, kind: str, changed: dict[str, Any]
) -> None:
    model = classifier(kind)
    plain, folder = saved(model, tmp_path / "plain", tiny), saved(model, tmp_path / "mine", tiny)
    edit_json(folder / "config.json", **changed)
    assert train_it(folder) == []
    model_folder = find_model_folder(str(folder), None, "SOURCE", "")
    foreign = open_foreign("mine", model_folder, AdoptConfig())
    adopt(foreign, tmp_path / "model")
    engine = Engine(tmp_path / "model", EXACT)
    assert check_same(engine, foreign, 1e-5) < 1e-5
    unchanged = open_foreign(
        "plain", find_model_folder(str(plain), None, "SOURCE", ""), AdoptConfig()
    )
    assert difference(engine, unchanged) < 1e-5


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("multi_label_classification", ("negative", "neutral", "positive")),
        ("multi_label_classification", ("joy", "anger", "fear", "calm")),
        ("regression", ("LABEL_0",)),
    ],
)
def test_trained_model_answers_one_label_per_text_whatever_its_backbone_did(
    tiny: Path, tmp_path: Path, problem_type: str, labels: tuple[str, ...]
) -> None:
    """`transformers.pipeline` chooses sigmoid, softmax or nothing by this key."""
    folder = saved(classifier(labels=labels), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", problem_type=problem_type)
    model = new_classifier(Backbone("mine", str(folder)), 0)
    save_classifier(
        model, load_tokenizer(str(folder)), tmp_path / "model", Provenance(max_length=64)
    )
    config = read_json(tmp_path / "model" / "config.json")
    assert config["problem_type"] == "single_label_classification"


# --- what answers depend on -----------------------------------------------------------------------


def xlnet() -> PreTrainedModel:
    """Its config has other names of the shape."""
    shape = {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "pad_token_id": 0}
    config = AutoConfig.for_model("xlnet", vocab_size=2000, num_labels=3, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return model


@pytest.mark.parametrize("kind", ["xlnet", "fnet", "convbert", "nystromformer", "yoso"])
def test_answers_that_padding_changes_are_refused_before_training(
    tiny: Path, tmp_path: Path, kind: str
) -> None:
    folder = saved(xlnet() if kind == "xlnet" else classifier(kind), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", id2label=dict(enumerate(LABELS)), label2id={})
    for text in refusals(folder):
        assert "changes with the padding after it" in text


def test_two_padding_tokens_are_refused_where_the_answer_depends_on_them(
    tiny: Path, tmp_path: Path
) -> None:
    """GPT-2's head reads the last token that is not config.json's padding."""
    folder = saved(classifier("gpt2", pad_token_id=7), tmp_path / "mine", tiny)
    for text in refusals(folder):
        assert "config.json has pad_token_id=7 and its tokenizer pads with 0. Set the two" in text
    edit_json(folder / "config.json", pad_token_id=0)
    assert (adopt_it(folder), train_it(folder)) == ([], [])


def test_longest_input_is_computed_before_training(tiny: Path) -> None:
    """Whatever an architecture's config calls its limit."""
    tokenizer = read_tokenizer(str(tiny)).tokenizer
    with pytest.raises(InputError, match=r"M='x': cannot compute 64 tokens \(.+\)\. Lower max_l"):
        check_padding(classifier(max_position_embeddings=40), tokenizer, 64, "M='x'")
    check_padding(classifier(max_position_embeddings=40), tokenizer, 40, "M='x'")
