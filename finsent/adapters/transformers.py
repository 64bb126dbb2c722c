"""Private or fragile APIs of transformers. Imported only where transformers is loaded anyway."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

_PLAIN_ATTENTION = ("eager", "sdpa")


def find_cached_file(source: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a directory or of a cached hub repository; None: it does not exist.

    The public form raises an error for a missing file and, without a network, for a file that is
    not in the cache. Only private arguments turn both off.
    """
    path = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(path) if path else None


def eager_attention_options(config: Any) -> dict[str, str]:
    """Return options of `from_pretrained` that replace an attention which needs a GPU or a package.

    The chosen attention is a private attribute of the config. Files have it under the name with or
    without the underscore, so both must be overridden.
    """
    attention = getattr(config, "_attn_implementation", None)
    if attention is None or attention in _PLAIN_ATTENTION:
        return {}
    return dict.fromkeys(("attn_implementation", "_attn_implementation"), "eager")


def forget_tokenizer_code(tokenizer: PreTrainedTokenizerFast) -> None:
    """Drop the reference to Python code of the source, which finsent neither runs nor stores.

    `save_pretrained` writes `init_kwargs`, which no public method edits.
    """
    tokenizer.init_kwargs.pop("auto_map", None)


def forget_model_code(model: PreTrainedModel) -> None:
    """Drop the reference to Python code of the source, which finsent neither runs nor stores.

    `auto_map` has no declared attribute, so `del config.auto_map` fails where a config lacks it.
    """
    model.config.__dict__.pop("auto_map", None)


def set_model_inputs(tokenizer: PreTrainedTokenizerFast, names: Sequence[str]) -> None:
    """Set which inputs a tokenizer returns, now and after it is saved and loaded.

    The attribute alone is not saved: `save_pretrained` writes `init_kwargs`.
    """
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = [*names]
