"""Heads and limits of backbones: kept, reordered, replaced or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from finsent.data.rows.split import SPLITS
from finsent.labels import ID2LABEL
from finsent.modeling.classifier import init_classifier, inspect_backbone
from finsent.modeling.compatibility import position_limit
from tests.commands import check_refused, invoke_job
from tests.unit.adoption import STARS
from tests.unit.backbones import QUERY, backbone_of, refusal, same
from tests.unit.dataset_versions import Row, write
from tests.unit.foreign import classifier, edit_json, encoder, saved

pytestmark = [pytest.mark.cost(1.0, "builds models"), pytest.mark.usefixtures("one_thread")]


# --- heads ----------------------------------------------------------------------------------------


def test_plain_encoder_needs_no_word(tiny: Path, tmp_path: Path) -> None:
    assert inspect_backbone(backbone_of(saved(encoder(), tmp_path / "mine", tiny)), 128) == []


def test_own_head_is_kept_without_a_word(tiny: Path, tmp_path: Path) -> None:
    source = classifier()
    model, notes = init_classifier(backbone_of(saved(source, tmp_path / "mine", tiny)), 0)
    assert notes == []
    assert same(model, source, "classifier.weight")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_head_of_another_order_is_reordered_by_name(tiny: Path, tmp_path: Path, kind: str) -> None:
    source = classifier(kind, ("Positive", "Negative", "Neutral"))
    model, notes = init_classifier(backbone_of(saved(source, tmp_path / "mine", tiny)), 0)
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
    backbone = backbone_of(saved(source, tmp_path / "mine", tiny))
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
    inspect_backbone(backbone_of(folder), 128)


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
    assert "config.json has no pad_token_id. Set it to 0, the id of" in refusal(folder)


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
