"""Tokenizers of backbones are saved as they were loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer, Lowercase, Replace, Sequence
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from finsent.inference.encoder import Encoder
from finsent.modeling.model_dir import PLAIN_TOKENIZER_CLASSES
from finsent.modeling.tokenizer import read_tokenizer
from tests.unit.backbones import refusal
from tests.unit.foreign import edit_json, encoder, saved

pytestmark = [pytest.mark.cost(1.0, "builds models"), pytest.mark.usefixtures("one_thread")]


def customised(tiny: Path, out: Path, normalizer: Any, kind: str = "BertTokenizer") -> Path:
    """A tokenizer whose class in transformers builds other rules than its file has."""
    saved(encoder(), out, tiny)
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    tokenizer.normalizer = normalizer
    tokenizer.save(str(out / "tokenizer.json"))
    edit_json(out / "tokenizer_config.json", tokenizer_class=kind)
    return out


@pytest.mark.parametrize(
    ("normalizer", "note"),
    [
        (BertNormalizer(lowercase=False), "'Nokia Sales ROSE 5% in Q3.' is read as"),
        (Sequence([Replace("%", " percent "), BertNormalizer()]), "percent"),
    ],
)
def test_rules_of_tokenizer_json_are_kept_where_transformers_drops_them(
    tiny: Path, tmp_path: Path, normalizer: Any, note: str
) -> None:
    folder = customised(tiny, tmp_path / "mine", normalizer)
    text = "Nokia Sales ROSE 5%"
    own = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    assert AutoTokenizer.from_pretrained(folder)(text).input_ids != own  # the fault of others
    read = read_tokenizer(str(folder))
    assert read.tokenizer(text).input_ids == own
    assert len(read.notes) == 1
    assert "normalizer of tokenizer.json differs from what transformers' BertToken" in read.notes[0]
    assert note in read.notes[0]
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
