"""Fragile APIs of tokenizers. Imported only where a tokenizer is built or loaded."""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import BertWordPieceTokenizer, Tokenizer


def word_piece_tokenizer(vocabulary: Mapping[str, int]) -> Tokenizer:
    """Return BERT's lowercasing WordPiece tokenizer.

    `BertWordPieceTokenizer` assembles BERT's normalizer, pre-tokenizer and special tokens, but has
    no public way to the `Tokenizer` that transformers needs.
    """
    tokenizer: Tokenizer = BertWordPieceTokenizer(vocab=dict(vocabulary), lowercase=True)._tokenizer
    return tokenizer
