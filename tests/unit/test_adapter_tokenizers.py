"""tokenizers still has the private ground that `finsent.adapters.tokenizers` stands on."""

from __future__ import annotations

from tokenizers import BertWordPieceTokenizer, Tokenizer

from finsent.adapters.tokenizers import word_piece_tokenizer

VOCABULARY = {
    token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "profit", "##s", "."])
}


def test_tokenizer_is_that_of_bert() -> None:
    message = "BertWordPieceTokenizer no longer keeps its Tokenizer in _tokenizer"
    built = BertWordPieceTokenizer(vocab=VOCABULARY, lowercase=True)
    assert isinstance(getattr(built, "_tokenizer", None), Tokenizer), message
    encoded = word_piece_tokenizer(VOCABULARY).encode("PROFITS.")
    assert encoded.tokens == ["[CLS]", "profit", "##s", ".", "[SEP]"]
