"""Check that a tokenizer knows English words, in the case that its vocabulary has."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from finsent.errors import InputError

_ENGLISH_TEXT = "Nokia Sales ROSE 5% in Q3"
_RARE_TEXT = (
    "\u1261\u20bf\U0001f4c8\u0f04"  # Ethiopic, a currency, an emoji, Tibetan: in few vocabularies
)
_MAX_UNKNOWN_SHARE = 0.25  # of the tokens of `_ENGLISH_TEXT`
_MAX_CAPITALS_SHARE = 0.05  # of the vocabulary


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, name: str) -> list[str]:
    """Tokenize plain English and rare characters.

    Args:
        name: the model in messages, as `FIELD=VALUE`.

    Returns:
        Lines on what a user should know.

    Raises:
        InputError: the tokenizer fails on an unknown character, or knows none of the words.
    """
    backend = tokenizer.backend_tokenizer
    try:
        backend.encode(_RARE_TEXT)
        tokens = backend.encode(_ENGLISH_TEXT, add_special_tokens=False).tokens
    except Exception as error:  # tokenizers raises bare Exceptions
        raise InputError(
            f"{name}: its tokenizer fails on words that its vocabulary lacks ({error}). Set "
            "unk_token in the part `model` of tokenizer.json to a token of the vocabulary."
        ) from None
    unknown = sum(token == tokenizer.unk_token for token in tokens)
    if unknown == len(tokens):
        raise InputError(
            f"{name}: its tokenizer knows no word of {_ENGLISH_TEXT!r}. Check that the files of "
            "tokenizer and model belong together, and use a model with a tokenizer.json."
        )
    notes = []
    if unknown / len(tokens) > _MAX_UNKNOWN_SHARE:
        notes.append(
            f"the tokenizer knows {len(tokens) - unknown} of {len(tokens)} tokens of "
            f"{_ENGLISH_TEXT!r}: check that its vocabulary and its rules (do_lower_case) belong "
            "together"
        )
    return [*notes, *_case_notes(tokenizer), *_special_token_notes(tokenizer)]


def _case_notes(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    backend = tokenizer.backend_tokenizer
    if backend.encode("PROFIT ROSE").ids != backend.encode("profit rose").ids:
        return []
    words = [word for word in backend.get_vocab(with_added_tokens=False) if "[" not in word]
    words = [word for word in words if "<" not in word]
    capitals = sum(word != word.lower() for word in words)
    if capitals <= _MAX_CAPITALS_SHARE * len(words):
        return []
    return [
        f"the tokenizer lowercases texts, but {capitals} of its {len(words)} tokens have capitals "
        "and are never read; if the model is cased, set do_lower_case=false in "
        "tokenizer_config.json"
    ]


def _special_token_notes(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    special_ids = tokenizer.backend_tokenizer.encode("").ids
    cls_token = tokenizer.cls_token
    if special_ids or cls_token is None or tokenizer.cls_token_id is None:
        return []
    return [
        f"the tokenizer has {cls_token}, but puts no special tokens around a text: the model may "
        "have been trained with them (post_processor of tokenizer.json)"
    ]
