"""Build BERT backbones with random weights, which need no network.

The tiny BERT is for tests and dry runs. The BERT of BERT-base's shape is for measuring speed. The
vocabulary holds the words of the sample corpus, so that texts have about as many tokens as with a
pre-trained backbone.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TypedDict

from finsent.files import digest, staged_dir

_FORMAT_VERSION = 3  # raise it when `_build` writes other files than before
_VOCABULARY_SIZE = 2000


class BertShape(TypedDict):
    """Sizes of a BERT, by the names of transformers' `BertConfig`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int


_TINY_SHAPE: BertShape = {
    "vocab_size": _VOCABULARY_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
BASE_SHAPE: BertShape = {  # Devlin et al., arXiv:1810.04805
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
_SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def tiny_backbone(cache_dir: Path, seed: int = 0) -> Path:
    """Return the tiny BERT (2 layers, hidden size 32) under `cache_dir`; build it if missing."""
    return _cached_backbone(cache_dir, "tiny", _TINY_SHAPE, seed)


def random_base_backbone(cache_dir: Path, seed: int = 0) -> Path:
    """Return a BERT of bert-base-uncased's shape (440 MB) under `cache_dir`; build it if missing.

    The tokenizer is the tiny BERT's, which splits rare words into letters. Texts have somewhat more
    tokens than with the vocabulary of bert-base-uncased.
    """
    return _cached_backbone(cache_dir, "random-base", BASE_SHAPE, seed)


def _cached_backbone(cache_dir: Path, kind: str, shape: BertShape, seed: int) -> Path:
    sample = resources.files("finsent.data.sample") / "sentences.csv"
    text = sample.read_text(encoding="utf-8")
    folder = (
        cache_dir / f"{kind}-{digest([_FORMAT_VERSION, text, _VOCABULARY_SIZE, shape, seed])[:12]}"
    )
    if not folder.is_dir():
        sentences = [row["Sentence"] for row in csv.DictReader(text.splitlines())]
        with staged_dir(folder) as staging:
            _build(sentences, staging, shape, seed)
    return folder


def _vocabulary(sentences: list[str]) -> dict[str, int]:
    """Return ids of the special tokens, all letters, and the most frequent words.

    Words are counted. Training by merging pairs breaks ties in another order in each process.
    """
    pattern = re.compile(r"\w+|[^\w\s]")
    words = Counter(word for text in sentences for word in pattern.findall(text.lower()))
    letters = sorted({letter for word in words for letter in word})
    ranked = sorted(words, key=lambda word: (-words[word], word))
    tokens = [*_SPECIAL_TOKENS.values(), *letters, *(f"##{letter}" for letter in letters), *ranked]
    return {token: i for i, token in enumerate(list(dict.fromkeys(tokens))[:_VOCABULARY_SIZE])}


def _build(sentences: list[str], out: Path, shape: BertShape, seed: int) -> None:
    # A backbone in the cache needs none of these, which cost 4 s to import.
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils import logging as transformers_logging

    from finsent.adapters.tokenizers import word_piece_tokenizer

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_piece_tokenizer(_vocabulary(sentences)),
        model_max_length=512,
        **_SPECIAL_TOKENS,
    )
    tokenizer.save_pretrained(out)
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(BertConfig(**shape)).save_pretrained(out)
