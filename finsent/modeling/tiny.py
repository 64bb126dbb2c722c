"""A tiny BERT with random weights: the whole system in seconds, for tests and dry runs.

Its vocabulary is counted on the sample corpus, so texts are tokenised as with a real backbone.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from finsent.files import digest, staged_dir

_FORMAT = 2  # raise it when another way of building gives other files
_VOCABULARY = 2000
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
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
    sample = resources.files("finsent.data.sample") / "sentences.csv"
    text = sample.read_text(encoding="utf-8")
    name = digest([_FORMAT, text, _VOCABULARY, _SHAPE, seed])[:12]
    final = cache_dir / f"tiny-{name}"
    if not final.is_dir():
        sentences = [row["Sentence"] for row in csv.DictReader(text.splitlines())]
        with staged_dir(final) as staging:
            _build(sentences, staging, seed)
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


def _build(sentences: list[str], out: Path, seed: int) -> None:
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
        BertModel(BertConfig(vocab_size=_VOCABULARY, **_SHAPE)).save_pretrained(out)
