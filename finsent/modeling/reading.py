"""Whether a tokenizer reads words at all, and in the case that its vocabulary has."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from finsent.errors import InputError

_ENGLISH = "Nokia Sales ROSE 5% in Q3"
_RARE = "\u1261\u20bf\U0001f4c8\u0f04"  # Ethiopic, a currency, an emoji, Tibetan: unknown to most
_MAX_UNKNOWN = 0.25  # share of the tokens of `_ENGLISH`
_MAX_CAPITALS = 0.05  # share of the vocabulary


def check_reading(tokenizer: PreTrainedTokenizerFast, name: str) -> list[str]:
    """Read plain English and rare signs.

    Args:
        name: of the model, for messages: `FIELD=VALUE`.

    Returns:
        Lines on what a user should know.

    Raises:
        InputError: the tokenizer fails on an unknown sign, or knows none of the words.
    """
    reader = tokenizer.backend_tokenizer
    try:
        reader.encode(_RARE)
        tokens = reader.encode(_ENGLISH, add_special_tokens=False).tokens
    except Exception as error:  # tokenizers raises nothing more special
        raise InputError(
            f"{name}: its tokenizer fails on words that its vocabulary lacks ({error}); set "
            "unk_token in the part `model` of tokenizer.json to a token of the vocabulary"
        ) from None
    unknown = sum(token == tokenizer.unk_token for token in tokens)
    if unknown == len(tokens):
        raise InputError(
            f"{name}: its tokenizer knows no word of {_ENGLISH!r}; check that the files of "
            "tokenizer and model belong together, and use a model with a tokenizer.json"
        )
    notes = []
    if unknown / len(tokens) > _MAX_UNKNOWN:
        notes.append(
            f"the tokenizer knows {len(tokens) - unknown} of {len(tokens)} tokens of {_ENGLISH!r}: "
            "check that its vocabulary and its rules (do_lower_case) belong together"
        )
    return [*notes, *_case_notes(tokenizer), *_frame_notes(tokenizer)]


def _case_notes(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    reader = tokenizer.backend_tokenizer
    if reader.encode("PROFIT ROSE").ids != reader.encode("profit rose").ids:
        return []
    words = [word for word in reader.get_vocab(with_added_tokens=False) if "[" not in word]
    words = [word for word in words if "<" not in word]
    capitals = sum(word != word.lower() for word in words)
    if capitals <= _MAX_CAPITALS * len(words):
        return []
    return [
        f"the tokenizer lowercases texts, but {capitals} of its {len(words)} tokens have capitals "
        "and are never read; if the model is cased, set do_lower_case=false in "
        "tokenizer_config.json"
    ]


def _frame_notes(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    frame = tokenizer.backend_tokenizer.encode("").ids
    first = tokenizer.cls_token
    if frame or first is None or tokenizer.cls_token_id is None:
        return []
    return [
        f"the tokenizer has {first}, but puts no special tokens around a text: the model may have "
        "been trained with them (post_processor of tokenizer.json)"
    ]
