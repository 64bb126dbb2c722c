"""Check that a model, its tokenizer and the longest input fit each other."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from finsent.errors import InputError, one_line

# Architectures that count positions from pad_token_id + 1 on, as RoBERTa does. MPNet's padding
# index is 1, whatever its config has.
_OFFSET_TYPES = (
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "longformer",
    "data2vec-text",
    "ibert",
    "xmod",
    "mpnet",
    "luke",
    "lilt",
    "markuplm",
    "layoutlmv3",
    "esm",
)
_MPNET_PADDING = 1
_PROBE_TEXT = "Net sales rose to EUR 13.1 mn. "
_PROBE_PADDING = 5  # tokens
_TOLERANCE = 1e-3  # of the largest logit; smaller differences are rounding


def position_limit(config: Any) -> int | None:
    """Return the largest number of tokens that a model has positions for; None: any number.

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

    Args:
        config: of transformers.
        max_length: in tokens.
        name: of the model, for messages.
        field: setting of the maximum length, for messages.

    Raises:
        InputError: `max_length` is above the limit.
    """
    limit = position_limit(config)
    if limit is not None and max_length > limit:
        raise InputError(
            f"{field}={max_length}: {name} accepts at most {limit} tokens "
            f"({config.max_position_embeddings} positions). Lower it."
        )


def check_tokens(config: Any, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Refuse a tokenizer whose rows cannot be padded, or whose tokens the model cannot embed.

    Args:
        name: the model in messages, as `FIELD=VALUE`.

    Raises:
        InputError: a pad token is missing, or a token id is too large.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"{name}: its tokenizer has no pad token, so texts cannot form a batch. Set pad_token "
            "in tokenizer_config.json, and pad_token_id in config.json."
        )
    if config.pad_token_id is None:
        raise InputError(
            f"{name}: its config.json has no pad_token_id. Set it to {tokenizer.pad_token_id}, the "
            f"id of the tokenizer's {tokenizer.pad_token}."
        )
    last, token_id = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if token_id >= config.vocab_size:
        raise InputError(
            f"{name}: its tokenizer has the token {last!r} with id {token_id}, but the model "
            f"embeds {config.vocab_size} tokens. Call "
            f"model.resize_token_embeddings({token_id + 1}) and save it, or remove the added "
            "tokens."
        )


def check_padding(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, max_length: int, name: str
) -> None:
    """Refuse a model that cannot compute its longest input, or whose logits padding changes.

    Args:
        name: the model in messages, as `FIELD=VALUE`.

    Raises:
        InputError: the logits of a padded text differ, are not finite, or cannot be computed.
    """
    probes = [_PROBE_TEXT, _PROBE_TEXT * max_length]
    short, long = tokenizer.backend_tokenizer.encode_batch(probes)
    row, pad_id = short.ids[:max_length], tokenizer.pad_token_id
    padding = [pad_id] * min(_PROBE_PADDING, max_length - len(row))
    unpadded = _logits(model, row, len(row), name)
    padded = _logits(model, row + padding, len(row), name)
    _logits(model, long.ids[:max_length], max_length, name)
    if float((unpadded - padded).abs().max()) <= _TOLERANCE * float(unpadded.abs().max()):
        return
    config_pad_id = model.config.pad_token_id
    if pad_id != config_pad_id:
        raise InputError(
            f"{name}: its answer to a text changes with the padding after it, as config.json has "
            f"pad_token_id={config_pad_id} and its tokenizer pads with {pad_id}. Set the two to "
            "the same id."
        )
    raise InputError(
        f"{name}: its answer to a text changes with the padding after it, as an XLNet's does, "
        "so answers would depend on the other texts of a batch. Use another backbone."
    )


@torch.inference_mode()
def _logits(model: PreTrainedModel, ids: list[int], text_tokens: int, name: str) -> torch.Tensor:
    mask = [int(i < text_tokens) for i in range(len(ids))]
    was_training = model.training
    try:
        output = model.eval()(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([mask]))
    except Exception as error:  # models raise errors of many types: index, shape, setting
        problem = one_line(error)
        raise InputError(
            f"{name}: cannot compute {len(ids)} tokens ({type(error).__name__}: {problem}). Lower "
            "max_length, or check config.json."
        ) from None
    finally:
        model.train(was_training)
    logits: torch.Tensor = output.logits
    return logits
