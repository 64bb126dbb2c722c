"""BERTs with random weights: a tiny one, the whole system in seconds, for tests and dry runs, and
one of BERT-base's shape, for measuring speed without a network.

Its vocabulary is counted on the sample corpus, so texts are tokenized as with a real backbone.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from finsent.files import digest, staged_dir

_FORMAT = 3  # raise it when another way of building gives other files
_VOCABULARY = 2000
_TINY: dict[str, Any] = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
_BASE: dict[str, Any] = {  # Devlin et al., arXiv:1810.04805
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def tiny_backbone(cache_dir: Path, seed: int = 0) -> Path:
    """Build the tiny BERT (2 layers, hidden size 32) under `cache_dir`, or find it there."""
    return _random(cache_dir, "tiny", _TINY, seed)


def random_base_backbone(cache_dir: Path, seed: int = 0) -> Path:
    """Build a BERT of bert-base-uncased's shape, 440 MB, under `cache_dir`, or find it there.

    Its tokenizer is the tiny one's, which cuts rare words into letters: texts are somewhat longer
    than with the real vocabulary.
    """
    return _random(cache_dir, "random-base", _BASE, seed)


def _random(cache_dir: Path, kind: str, shape: dict[str, Any], seed: int) -> Path:
    sample = resources.files("finsent.data.sample") / "sentences.csv"
    text = sample.read_text(encoding="utf-8")
    final = cache_dir / f"{kind}-{digest([_FORMAT, text, _VOCABULARY, shape, seed])[:12]}"
    if not final.is_dir():
        sentences = [row["Sentence"] for row in csv.DictReader(text.splitlines())]
        with staged_dir(final) as staging:
            _build(sentences, staging, shape, seed)
    return final


def _vocabulary(sentences: list[str]) -> dict[str, int]:
    """Special tokens, every letter, and the most frequent words.

    Counted rather than trained by merging pairs: that breaks ties in another order in each process.
    """
    words = Counter(word for s in sentences for word in re.findall(r"\w+|[^\w\s]", s.lower()))
    letters = sorted({letter for word in words for letter in word})
    ranked = sorted(words, key=lambda word: (-words[word], word))
    tokens = [*_SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters), *ranked]
    return {token: i for i, token in enumerate(list(dict.fromkeys(tokens))[:_VOCABULARY])}


def _build(sentences: list[str], out: Path, shape: dict[str, Any], seed: int) -> None:
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils import logging as transformers_logging

    tokenizer = BertWordPieceTokenizer(vocab=_vocabulary(sentences), lowercase=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, model_max_length=512, **_SPECIAL
    )
    fast.save_pretrained(out)
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(BertConfig(**shape)).save_pretrained(out)
