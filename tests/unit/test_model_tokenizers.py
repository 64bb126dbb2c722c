"""Tokenizers in model directories: vocabularies, byte pairs, SentencePiece."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from tokenizers import ByteLevelBPETokenizer, Tokenizer

from finsent.modeling.tokenizer import read_tokenizer
from tests.unit.foreign import classifier, edit_json, encoder, saved
from tests.unit.model_uses import adopt_it, refusals, train_it

pytestmark = [pytest.mark.cost(1.0, "builds models"), pytest.mark.usefixtures("one_thread")]


# --- tokenizers -----------------------------------------------------------------------------------


def words_of(folder: Path) -> list[str]:
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def with_vocabulary(folder: Path, words: list[str], **settings: Any) -> Path:
    """Give a model a vocabulary in place of tokenizer.json."""
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_cased_vocabulary_that_is_lowercased_is_said(tiny: Path, tmp_path: Path) -> None:
    """Without `do_lower_case`, transformers lowercases texts for a vocabulary."""
    folder = saved(classifier(), tmp_path / "mine", tiny)
    words = [
        word.capitalize() if i % 2 and word[0].isalpha() else word
        for i, word in enumerate(words_of(folder))
    ]
    with_vocabulary(folder, words)
    for notes in (adopt_it(folder), train_it(folder)):
        assert "lowercases texts, but 8" in notes[0] and "do_lower_case=false" in notes[0]
    edit_json(folder / "tokenizer_config.json", do_lower_case=False)
    assert not [note for note in train_it(folder) if "lowercases" in note]


def test_uncased_vocabulary_that_is_read_cased_is_said(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    with_vocabulary(folder, words_of(folder), do_lower_case=False, tokenizer_class="BertTokenizer")
    [note] = adopt_it(folder)
    assert "the tokenizer knows " in note and "do_lower_case" in note


def test_tokenizer_that_knows_no_word_is_refused(tiny: Path, tmp_path: Path) -> None:
    """A BERTweet has a vocab.txt, too, with counts: without its class it is read as BERT's."""
    folder = saved(classifier("roberta"), tmp_path / "mine", tiny)
    with_vocabulary(folder, ["profit 10", "rose 9", "p@@ 8"])
    for text in refusals(folder):
        assert text.startswith("its tokenizer knows no word of ")


def test_tokenizer_without_a_fast_form_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier("roberta"), tmp_path / "mine", tiny)
    with_vocabulary(folder, ["profit 10"], tokenizer_class="BertweetTokenizer")
    (folder / "bpe.codes").write_text("p r 10\n")
    for text in refusals(folder):
        assert "is a BertweetTokenizer, which has no fast form" in text


def test_tokenizer_that_fails_on_unknown_words_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["unk_token"] = "[NONE]"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for text in refusals(folder):
        assert "fails on words that its vocabulary lacks" in text and "unk_token" in text


def test_missing_frame_of_special_tokens_is_said(tiny: Path, tmp_path: Path) -> None:
    folder = saved(classifier(), tmp_path / "mine", tiny)
    edit_json(folder / "tokenizer.json", post_processor=None)
    for notes in (adopt_it(folder), train_it(folder)):
        assert "[CLS], but puts no special tokens around a text" in notes[0]


def test_padding_and_truncation_of_a_file_are_no_rules(tiny: Path, tmp_path: Path) -> None:
    """A tokenizer.json keeps how it was last used; exporters leave such files."""
    folder = saved(classifier(), tmp_path / "mine", tiny)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert (adopt_it(folder), train_it(folder)) == ([], [])
    read = read_tokenizer(str(folder)).tokenizer
    shutil.copyfile(tiny / "tokenizer.json", folder / "tokenizer.json")
    text = "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn."
    assert read(text).input_ids == read_tokenizer(str(folder)).tokenizer(text).input_ids


def test_encoder_needs_no_word(tiny: Path, tmp_path: Path) -> None:
    assert train_it(saved(encoder(), tmp_path / "mine", tiny)) == []


def sample() -> list[str]:
    """Lines of the sample corpus."""
    text = (resources.files("finsent.data.sample") / "sentences.csv").read_text("utf-8")
    return text.splitlines()[:300]


def test_byte_pairs_without_tokenizer_json_cut_texts_as_they_did(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    classifier("roberta", pad_token_id=1).save_pretrained(folder)
    pairs = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pairs.train_from_iterator(sample(), vocab_size=600, special_tokens=special)
    pairs.save_model(str(folder))
    assert {"vocab.json", "merges.txt"} <= {file.name for file in folder.iterdir()}
    adopt_it(folder)
    reader = Tokenizer.from_file(str(tmp_path / "adopted" / "tokenizer.json"))
    text = "Operating profit ROSE to EUR 13.1 mn."
    assert reader.encode(text).tokens == ["<s>", *pairs.encode(text).tokens, "</s>"]


# --- SentencePiece --------------------------------------------------------------------------------


def sentencepiece_model(file: Path, **options: Any) -> Any:
    """Train a model on the sample corpus; returns its processor."""
    trainer = pytest.importorskip("sentencepiece")
    with file.open("wb") as stream:
        trainer.SentencePieceTrainer.train(
            sentence_iterator=iter(sample()),
            model_writer=stream,
            vocab_size=300,
            num_threads=1,
            minloglevel=2,
            **options,
        )
    return trainer.SentencePieceProcessor(model_file=str(file))


@pytest.mark.parametrize(
    ("kind", "name", "named", "frame"),
    [
        ("albert", "spiece.model", "AlbertTokenizer", ("[CLS]", "[SEP]")),
        ("deberta-v2", "spm.model", "DebertaV2Tokenizer", ("[CLS]", "[SEP]")),
        ("xlm-roberta", "sentencepiece.bpe.model", "XLMRobertaTokenizer", ("<s>", "</s>")),
        ("camembert", "sentencepiece.bpe.model", "CamembertTokenizer", ("<s>", "</s>")),
    ],
)
def test_sentencepiece_alone_becomes_a_tokenizer_that_cuts_texts_as_it_does(
    tmp_path: Path, kind: str, name: str, named: str, frame: tuple[str, str]
) -> None:
    special = {
        "albert": {"user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"], "pad_id": 3},
        "deberta-v2": {
            "pad_id": 0,
            "bos_id": 1,
            "eos_id": 2,
            "unk_id": 3,
            "pad_piece": "[PAD]",
            "bos_piece": "[CLS]",
            "eos_piece": "[SEP]",
            "unk_piece": "[UNK]",
        },
    }.get(kind, {})
    folder = tmp_path / "mine"
    classifier(kind, pad_token_id=1).save_pretrained(folder)
    processor = sentencepiece_model(folder / name, **special)
    settings = {"tokenizer_class": named, "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    adopt_it(folder)
    reader = Tokenizer.from_file(str(tmp_path / "adopted" / "tokenizer.json"))
    for text in ("Operating profit ROSE to EUR 13.1 mn.", "The shares fell 8 %"):
        pieces = processor.encode(text, out_type=str)
        assert reader.encode(text).tokens == [frame[0], *pieces, frame[1]]


def test_package_that_reads_sentencepiece_is_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # as for an import: not to be there
    folder = saved(classifier("albert"), tmp_path / "mine", tiny)
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    for text in refusals(folder):
        assert "SentencePiece (spiece.model) without tokenizer.json" in text
        assert "pip install 'finsent[sentencepiece]'" in text
