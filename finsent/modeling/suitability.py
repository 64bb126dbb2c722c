"""Whether a model and its tokenizer suit each other and the longest input."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerFast

from finsent.errors import InputError

# Architectures that count positions from pad_token_id + 1 on, as RoBERTa does. MPNet's padding
# index is 1 whatever its config has.
_OFFSET_TYPES = (
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer",
    "data2vec-text", "ibert", "xmod", "mpnet", "luke", "lilt", "markuplm", "layoutlmv3",
)  # fmt: skip
_MPNET_PADDING = 1


def position_limit(config: Any) -> int | None:
    """Return the most tokens that a model has positions for; None: any number.

    Args:
        config: of transformers.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:  # XLNet has -1: relative positions
        return None
    if config.model_type not in _OFFSET_TYPES:
        return positions
    padding = _MPNET_PADDING if config.model_type == "mpnet" else config.pad_token_id
    return positions - (int(padding or 0) + 1)


def check_length(config: Any, max_length: int, name: str, field: str) -> None:
    """Refuse a longest input that the model has no positions for.

    Raises:
        InputError: `max_length` is above the limit.
    """
    limit = position_limit(config)
    if limit is not None and max_length > limit:
        raise InputError(
            f"{field}={max_length}: {name} takes at most {limit} tokens "
            f"({config.max_position_embeddings} positions); lower it"
        )


def check_tokens(config: Any, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Refuse a tokenizer whose rows cannot be padded, or whose tokens the model cannot embed.

    Args:
        name: of the model, for messages: `FIELD=VALUE`.

    Raises:
        InputError: with the remedy.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"{name}: its tokenizer has no pad token, so texts cannot form a batch; set pad_token "
            "in tokenizer_config.json, and pad_token_id in config.json"
        )
    if config.pad_token_id is None:
        raise InputError(
            f"{name}: its config.json has no pad_token_id; set it to {tokenizer.pad_token_id}, the "
            f"id of the tokenizer's {tokenizer.pad_token}"
        )
    last, token_id = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if token_id >= config.vocab_size:
        raise InputError(
            f"{name}: its tokenizer has the token {last!r} with id {token_id}, but the model "
            f"embeds {config.vocab_size} tokens; call "
            f"model.resize_token_embeddings({token_id + 1}) and save it, or remove the added tokens"
        )
