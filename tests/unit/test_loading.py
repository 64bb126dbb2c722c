"""Backbones from elsewhere: complete weights, faithful tokenizers, heads that are known or new."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer, Lowercase, Replace, Sequence
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from finsent.data.rows.split import SPLITS
from finsent.errors import InputError
from finsent.inference.encoder import Encoder
from finsent.labels import ID2LABEL
from finsent.modeling.backbone import Backbone, resolve_backbone
from finsent.modeling.classifier import init_classifier, inspect_backbone, new_classifier
from finsent.modeling.compatibility import position_limit
from finsent.modeling.config import ModelConfig
from finsent.modeling.model_dir import PLAIN_TOKENIZER_CLASSES
from finsent.modeling.tokenizer import read_tokenizer
from tests.commands import check_refused, invoke_job
from tests.unit.foreign import classifier, edit_json, encoder, saved
from tests.unit.test_backbone import hub_cache as hub_cache
from tests.unit.test_backbone import snapshot
from tests.unit.test_diff import Row, write

pytestmark = [pytest.mark.cost(1.0, "builds models"), pytest.mark.usefixtures("one_thread")]

STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")


def found(folder: Path) -> Backbone:
    return resolve_backbone(ModelConfig(backbone=str(folder)), folder.parent)


def refusal(folder: Path, max_length: int = 128) -> str:
    with pytest.raises(InputError) as caught:
        inspect_backbone(found(folder), max_length)
    text = str(caught.value)
    assert "\n" not in text
    return text


def same(model: Any, other: Any, key: str) -> bool:
    return torch.equal(model.state_dict()[key], other.state_dict()[key])


# --- weights --------------------------------------------------------------------------------------

QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize("layout", [{}, {"shard": "100KB"}, {"pickled": True}])
def test_each_layout_of_weights_gives_the_same_encoder(
    tiny: Path, tmp_path: Path, layout: dict[str, Any]
) -> None:
    source = classifier(labels=STARS)
    folder = saved(source, tmp_path / "mine", tiny, **layout)
    if "shard" in layout:
        assert len([*folder.glob("model-*.safetensors")]) > 1
    assert same(new_classifier(found(folder), 0), source, QUERY)


def test_vocabulary_alone_becomes_a_fast_tokenizer(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    read = read_tokenizer(found(folder).source)
    assert read.notes == []
    text = "Operating profit ROSE 5 %"
    expected = Tokenizer.from_file(str(tiny / "tokenizer.json")).encode(text).ids
    assert read.tokenizer(text).input_ids == expected


def test_hub_model_of_pickled_weights_and_a_vocabulary_is_loaded_from_the_cache(
    tiny: Path, tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(hub_cache))
    source = encoder()
    folder = saved(source, tmp_path / "source", tiny, pickled=True)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    snapshot(hub_cache, "someone", "finbert", folder)
    backbone = resolve_backbone(ModelConfig(backbone="someone/finbert"), tmp_path)
    assert backbone == Backbone("someone/finbert", "someone/finbert", None, is_pickled=True)
    assert inspect_backbone(backbone, 128) == []
    assert torch.equal(
        new_classifier(backbone, 0).state_dict()[QUERY],
        source.state_dict()[QUERY.removeprefix("bert.")],
    )


class Code:
    """Runs a command when it is unpickled by a careless loader."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickled-code-ran",)


def test_pickled_code_is_refused_and_does_not_run(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = classifier()
    weights: dict[str, Any] = {**model.state_dict(), "more": Code()}
    folder = saved(model, tmp_path / "mine", tiny, pickled=True, weights=weights)
    text = refusal(folder)
    assert text.startswith(f"model.backbone={str(folder)!r}: its .bin file holds code")
    assert "safetensors" in text
    assert not (tmp_path / "pickled-code-ran").exists()


@pytest.mark.parametrize("pickled", [False, True])
def test_prefixed_weights_are_an_error_that_names_the_prefix(
    tiny: Path, tmp_path: Path, pickled: bool
) -> None:
    model = encoder()
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    folder = saved(model, tmp_path / "mine", tiny, pickled=pickled, weights=weights)
    text = refusal(folder)
    assert "its weights lack bert.embeddings.LayerNorm.bias and 36 more" in text
    assert "prefix 'module.'" in text


def test_missing_layer_is_an_error_that_names_it(tiny: Path, tmp_path: Path) -> None:
    model = encoder()
    weights = model.state_dict()
    del weights["encoder.layer.1.output.dense.weight"]
    text = refusal(saved(model, tmp_path / "mine", tiny, weights=weights))
    assert "its weights lack bert.encoder.layer.1.output.dense.weight;" in text


def test_encoder_of_another_size_is_an_error_that_names_a_weight(
    tiny: Path, tmp_path: Path
) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", intermediate_size=128)
    assert "have another shape for bert.encoder.layer.0." in refusal(folder)


def test_missing_pooler_is_new_and_said(tiny: Path, tmp_path: Path) -> None:
    model = encoder()
    weights = {k: v for k, v in model.state_dict().items() if "pooler" not in k}
    notes = inspect_backbone(found(saved(model, tmp_path / "mine", tiny, weights=weights)), 128)
    assert len(notes) == 1
    assert "the encoder's pooler is new" in notes[0]


def test_half_a_head_is_an_error(tiny: Path, tmp_path: Path) -> None:
    model = classifier("roberta")
    weights = model.state_dict()
    del weights["classifier.dense.weight"]
    text = refusal(saved(model, tmp_path / "mine", tiny, weights=weights))
    assert "its weights lack classifier.dense.weight;" in text


def test_unknown_architecture_is_one_line(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", model_type="no-such-type")
    assert "its config.json cannot be used" in refusal(folder)


# --- heads ----------------------------------------------------------------------------------------


def test_plain_encoder_needs_no_word(tiny: Path, tmp_path: Path) -> None:
    assert inspect_backbone(found(saved(encoder(), tmp_path / "mine", tiny)), 128) == []


def test_own_head_is_kept_without_a_word(tiny: Path, tmp_path: Path) -> None:
    source = classifier()
    model, notes = init_classifier(found(saved(source, tmp_path / "mine", tiny)), 0)
    assert notes == []
    assert same(model, source, "classifier.weight")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_head_of_another_order_is_reordered_by_name(tiny: Path, tmp_path: Path, kind: str) -> None:
    source = classifier(kind, ("Positive", "Negative", "Neutral"))
    model, notes = init_classifier(found(saved(source, tmp_path / "mine", tiny)), 0)
    assert notes == [
        "the head is kept, its labels reordered from Positive, Negative, Neutral to negative, "
        "neutral, positive"
    ]
    ids = torch.tensor([[2, 9, 17, 3]])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        mine = model.eval()(input_ids=ids, attention_mask=mask).logits
        theirs = source(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(mine, theirs[:, [1, 2, 0]])
    assert model.config.id2label == ID2LABEL


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (("NEGATIVE", "POSITIVE"), "the backbone's has 2 labels (NEGATIVE, POSITIVE)"),
        (STARS, "the backbone's has 5 labels (1 star, 2 stars, 3 stars, 4 stars, 5 stars)"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), "the backbone's labels are LABEL_0, LABEL_1, LABEL_2"),
        (("joy", "anger", "positive"), "the backbone's labels are joy, anger, positive"),
    ],
)
def test_head_of_other_labels_is_replaced_and_said(
    tiny: Path, tmp_path: Path, labels: tuple[str, ...], note: str
) -> None:
    source = classifier(labels=labels)
    backbone = found(saved(source, tmp_path / "mine", tiny))
    models = [init_classifier(backbone, seed) for seed in (1, 1, 2)]
    assert models[0][1] == [f"the head's output layer is new: {note}"]
    heads = [model.get_parameter("classifier.weight") for model, _ in models]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (3, 32)
    assert heads[0].abs().max() < 0.2  # drawn anew: the source's are larger
    assert same(models[0][0], source, QUERY)


# --- what does not fit together -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shape", "limit"),
    [
        ("bert", {}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 3}, 510),
        ("roberta", {"max_position_embeddings": 130, "pad_token_id": 1}, 128),
        ("mpnet", {"max_position_embeddings": 514, "pad_token_id": 0}, 512),
        ("xlnet", {}, None),
    ],
)
def test_position_limit_counts_the_offset(
    kind: str, shape: dict[str, Any], limit: int | None
) -> None:
    from transformers import AutoConfig

    assert position_limit(AutoConfig.for_model(kind, **shape)) == limit


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "mpnet"])
def test_position_limit_is_what_the_model_takes(kind: str) -> None:
    model = classifier(kind, max_position_embeddings=40, pad_token_id=3)
    limit = position_limit(model.config)
    assert limit is not None
    with torch.inference_mode():
        model(input_ids=torch.full((1, limit), 7))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, limit + 1), 7))


def test_too_long_inputs_are_refused_before_training(tiny: Path, tmp_path: Path) -> None:
    model = encoder("roberta", max_position_embeddings=130, pad_token_id=1)
    folder = saved(model, tmp_path / "mine", tiny)
    text = refusal(folder, 130)
    assert text.startswith(f"model.max_length=130: {folder} accepts at most 128 tokens (130 pos")
    inspect_backbone(found(folder), 128)


def test_tokenizer_without_pad_token_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    del content["pad_token"]
    file.write_text(json.dumps(content))
    assert "its tokenizer has no pad token" in refusal(folder)


def test_config_without_pad_token_is_refused_with_its_id(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", pad_token_id=None)
    assert "config.json has no pad_token_id; set it to 0, the id of" in refusal(folder)


def test_tokens_beyond_the_embeddings_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["$aapl", "$tsla"])
    tokenizer.save_pretrained(folder)
    text = refusal(folder)
    assert "has the token '$tsla' with id 2001, but the model embeds 2000 tokens" in text
    assert "resize_token_embeddings(2002)" in text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pad_token_id": None}, "has no pad_token_id"),
        ({"max_position_embeddings": 100}, "model.max_length=128: "),
        ({"vocab_size": 1999}, "the model embeds 1999 tokens"),
    ],
)
def test_training_is_refused_before_ray_starts(
    tiny: Path, project: Path, changed: dict[str, Any], words: str
) -> None:
    import ray

    saved(encoder(), project / "mine", tiny)
    edit_json(project / "mine/config.json", **changed)
    rows = [Row(f"{split} {i}", "neutral", split) for split in SPLITS for i in range(9)]
    write(project / "artifacts/datasets/default/0123456789ab", rows)
    had_ray = ray.is_initialized()  # of integration tests that ran in this process before
    refusal = invoke_job("train", "model.backbone=./mine", "data.name=default")
    check_refused(refusal, [words])
    assert "starting the workers" not in refusal.err and "starting a local Ray" not in refusal.err
    assert ray.is_initialized() == had_ray


# --- tokenizers -----------------------------------------------------------------------------------


def customised(tiny: Path, out: Path, normalizer: Any, kind: str = "BertTokenizer") -> Path:
    """A tokenizer whose class in transformers builds other rules than its file has."""
    saved(encoder(), out, tiny)
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    tokenizer.normalizer = normalizer
    tokenizer.save(str(out / "tokenizer.json"))
    edit_json(out / "tokenizer_config.json", tokenizer_class=kind)
    return out


@pytest.mark.parametrize(
    ("normalizer", "said"),
    [
        (BertNormalizer(lowercase=False), "'Nokia Sales ROSE 5% in Q3.' is read as"),
        (Sequence([Replace("%", " percent "), BertNormalizer()]), "percent"),
    ],
)
def test_rules_of_tokenizer_json_are_kept_where_transformers_drops_them(
    tiny: Path, tmp_path: Path, normalizer: Any, said: str
) -> None:
    folder = customised(tiny, tmp_path / "mine", normalizer)
    text = "Nokia Sales ROSE 5%"
    own = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    assert AutoTokenizer.from_pretrained(folder)(text).input_ids != own  # the fault of others
    read = read_tokenizer(str(folder))
    assert read.tokenizer(text).input_ids == own
    assert len(read.notes) == 1
    assert "normalizer of tokenizer.json differs from what transformers' BertToken" in read.notes[0]
    assert said in read.notes[0]
    read.tokenizer.save_pretrained(tmp_path / "saved")  # what is published
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(text).input_ids == own
    assert Encoder(tmp_path / "saved", 48)([text], "right")[0].ids == own
    assert read.tokenizer.pad_token == "[PAD]"


def test_transformers_logs_no_warning_of_its_own_on_a_tokenizer(tiny: Path) -> None:
    transformers_logging.set_verbosity_warning()
    read_tokenizer(str(tiny))
    assert transformers_logging.get_verbosity() == logging.ERROR


def test_rule_that_no_probe_shows_is_kept_and_said(tiny: Path, tmp_path: Path) -> None:
    rules = Sequence([Replace("ß", "ss"), BertNormalizer()])
    folder = customised(tiny, tmp_path / "mine", rules)
    read = read_tokenizer(str(folder))
    assert len(read.notes) == 1
    assert "tokenizer.json is kept" in read.notes[0]
    assert read.tokenizer.tokenize("straße") == read.tokenizer.tokenize("strasse")


@pytest.mark.parametrize("lowercase", [False, True])
def test_what_tokenizer_config_sets_itself_overrules_tokenizer_json_and_is_said(
    tiny: Path, tmp_path: Path, lowercase: bool
) -> None:
    folder = customised(tiny, tmp_path / "mine", BertNormalizer(lowercase=not lowercase))
    edit_json(folder / "tokenizer_config.json", do_lower_case=lowercase)
    read = read_tokenizer(str(folder))
    assert read.notes == [
        f"tokenizer_config.json overrules tokenizer.json: do_lower_case={lowercase}"
    ]
    assert not read.has_other_rules
    same = read.tokenizer.tokenize("PROFIT") == read.tokenizer.tokenize("profit")
    assert same is lowercase
    read.tokenizer.save_pretrained(tmp_path / "saved")
    ids = Encoder(tmp_path / "saved", 48)(["PROFIT"], "right")[0].ids
    assert ids == read.tokenizer("PROFIT").input_ids


def test_setting_that_agrees_keeps_a_rule_next_to_it(tiny: Path, tmp_path: Path) -> None:
    rules = Sequence([Replace("%", " percent "), BertNormalizer()])
    folder = customised(tiny, tmp_path / "mine", rules)
    edit_json(folder / "tokenizer_config.json", do_lower_case=True)
    read = read_tokenizer(str(folder))
    assert read.tokenizer.tokenize("5 %") == read.tokenizer.tokenize("5 percent")
    assert "tokenizer.json is kept" in read.notes[0]


def test_tokenizers_that_agree_need_no_word(tiny: Path, tmp_path: Path) -> None:
    folder = customised(tiny, tmp_path / "mine", BertNormalizer())
    assert read_tokenizer(str(folder)).notes == []
    assert read_tokenizer(str(tiny)).notes == []


@pytest.mark.parametrize("name", PLAIN_TOKENIZER_CLASSES)
def test_lowercasing_of_a_file_is_kept_for_its_own_class(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    folder = customised(tiny, tmp_path / "mine", Lowercase(), name)
    read = read_tokenizer(str(folder))
    assert read.notes == []
    assert read.tokenizer.tokenize("PROFIT") == read.tokenizer.tokenize("profit")


def test_left_truncation_is_said_and_the_saved_tokenizer_cuts_as_training_did(
    tiny: Path, tmp_path: Path
) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    edit_json(folder / "tokenizer_config.json", truncation_side="left")
    read = read_tokenizer(str(folder))
    assert len(read.notes) == 1
    assert "truncation_side=left" in read.notes[0] and "engine.truncate=left" in read.notes[0]
    read.tokenizer.save_pretrained(tmp_path / "saved")
    published = AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "profit " * 30 + "loss"
    ids = published(text, truncation=True, max_length=16).input_ids
    assert ids == Encoder(tmp_path / "saved", 16)([text], "right")[0].ids


def test_damaged_tokenizer_is_one_line(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    (folder / "tokenizer.json").write_text("{}")
    assert "its tokenizer cannot be loaded" in refusal(folder)
