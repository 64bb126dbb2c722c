"""Weights of backbones from elsewhere: complete or refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from finsent.modeling.backbone import Backbone, resolve_backbone
from finsent.modeling.classifier import inspect_backbone, new_classifier
from finsent.modeling.config import ModelConfig
from finsent.modeling.tokenizer import read_tokenizer
from tests.unit.adoption import STARS
from tests.unit.backbones import QUERY, backbone_of, refusal, same
from tests.unit.foreign import classifier, edit_json, encoder, saved, snapshot

pytestmark = [pytest.mark.cost(1.0, "builds models"), pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("layout", [{}, {"shard": "100KB"}, {"pickled": True}])
def test_each_layout_of_weights_gives_the_same_encoder(
    tiny: Path, tmp_path: Path, layout: dict[str, Any]
) -> None:
    source = classifier(labels=STARS)
    folder = saved(source, tmp_path / "mine", tiny, **layout)
    if "shard" in layout:
        assert len([*folder.glob("model-*.safetensors")]) > 1
    assert same(new_classifier(backbone_of(folder), 0), source, QUERY)


def test_vocabulary_alone_becomes_a_fast_tokenizer(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    read = read_tokenizer(backbone_of(folder).source)
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
    assert "its weights lack bert.encoder.layer.1.output.dense.weight." in text


def test_encoder_of_another_size_is_an_error_that_names_a_weight(
    tiny: Path, tmp_path: Path
) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", intermediate_size=128)
    assert "have another shape for bert.encoder.layer.0." in refusal(folder)


def test_missing_pooler_is_new_and_said(tiny: Path, tmp_path: Path) -> None:
    model = encoder()
    weights = {k: v for k, v in model.state_dict().items() if "pooler" not in k}
    notes = inspect_backbone(
        backbone_of(saved(model, tmp_path / "mine", tiny, weights=weights)), 128
    )
    assert len(notes) == 1
    assert "the encoder's pooler is new" in notes[0]


def test_half_a_head_is_an_error(tiny: Path, tmp_path: Path) -> None:
    model = classifier("roberta")
    weights = model.state_dict()
    del weights["classifier.dense.weight"]
    text = refusal(saved(model, tmp_path / "mine", tiny, weights=weights))
    assert "its weights lack classifier.dense.weight." in text


def test_unknown_architecture_is_one_line(tiny: Path, tmp_path: Path) -> None:
    folder = saved(encoder(), tmp_path / "mine", tiny)
    edit_json(folder / "config.json", model_type="no-such-type")
    assert "its config.json cannot be used" in refusal(folder)
