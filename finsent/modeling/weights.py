"""Load weights: tensors only, complete, and never random numbers without a message."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from finsent.adapters.transformers import eager_attention_options, forget_model_code
from finsent.errors import InputError, one_line

_MAX_LISTED = 3  # unused weights in a message
# Settings of a config that change the form of the output, or how the same output is computed.
_NEUTRAL_OPTIONS = {
    "return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "chunk_size_feed_forward": 0,
}
_WRAPPER_KEYS = ("state_dict", "model_state_dict", "module", "model")  # of training checkpoints
# Buffers that old versions saved, and heads of pre-training: a classifier does not use them.
_HARMLESS = (
    "position_ids",
    "token_type_ids",
    "cls.",
    "lm_head.",
    "vocab_",
    "mlm_",
    "decoder.",
    "predictions.",
    "pooler.",
)


@dataclass(frozen=True)
class LoadedModel:
    """A model, and the differences between its weights and the weights of the files."""

    model: PreTrainedModel
    missing: list[str]  # not in the files; the model has random numbers
    # Of another shape in the files, which is the value; the model has random numbers.
    mismatched: dict[str, tuple[int, ...]]
    unused: list[str]  # in the files, and not in the model

    @property
    def encoder_prefix(self) -> str:
        """Prefix of the names of the encoder's weights."""
        return f"{self.model.base_model_prefix}."


def read_config(source: str, name: str, revision: str | None = None) -> Any:
    """Return a model's config, of transformers. Code of the source never runs.

    Args:
        source: a local directory or a hub id.
        name: the model in messages, as `FIELD=VALUE`.

    Raises:
        InputError: config.json is missing, damaged or of an unknown architecture.
    """
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # architectures raise errors of many types
        problem = one_line(error)
        raise InputError(
            f"{name}: its config.json cannot be used ({problem}). Correct it, or use a model whose "
            "architecture transformers has."
        ) from None
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        is_plain = isinstance(quantization, dict)
        method = quantization.get("quant_method") if is_plain else quantization
        raise InputError(
            f"{name}: its weights are quantized ({method}, quantization_config in config.json). "
            "Use a copy in fp32, fp16 or bf16: exports are quantized here, behind the parity gate."
        )
    return config


def neutral_options(config: Any) -> dict[str, str | bool | int]:
    """Return options of `from_pretrained` with which a model computes plain logits.

    Args:
        config: of transformers.
    """
    options = {key: value for key, value in _NEUTRAL_OPTIONS.items() if hasattr(config, key)}
    return {**options, **eager_attention_options(config)}


def load_weights(
    source: str, name: str, *, is_pickled: bool, revision: str | None = None, **options: Any
) -> LoadedModel:
    """Load a classifier in fp32. For `.bin` files torch's loader accepts tensors only.

    Args:
        source: a local directory or a hub id.
        name: the model in messages, as `FIELD=VALUE`.
        is_pickled: whether the weights are in a `.bin` file.
        options: of `from_pretrained`.

    Raises:
        InputError: the files are damaged, contain more than tensors, or are of an unknown
            architecture.
    """
    neutral = neutral_options(read_config(source, name, revision))
    transformers_logging.set_verbosity_error()  # `check_complete` reports missing weights
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            use_safetensors=not is_pickled,
            weights_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            revision=revision,
            **neutral | options,
        )
    except pickle.UnpicklingError:
        raise InputError(
            f"{name}: its .bin file holds code or objects next to tensors (a pickle), which could "
            "run as it is loaded. Use a copy with safetensors weights."
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # safetensors, torch and transformers share no error type
        problem = one_line(error)
        raise InputError(
            f"{name}: its weights cannot be loaded ({problem}): the files are damaged or do not "
            "fit config.json. Download them again, or use another copy."
        ) from None
    assert isinstance(model, PreTrainedModel)
    forget_model_code(model)
    _check_finite(model, name)
    return LoadedModel(
        model,
        sorted(info["missing_keys"]),
        {key: tuple(shape) for key, shape, *_ in sorted(info["mismatched_keys"])},
        sorted(info["unexpected_keys"]),
    )


def _check_finite(model: PreTrainedModel, name: str) -> None:
    for key, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise InputError(
                f"{name}: its weights {key} are not all numbers: the file is damaged, or was saved "
                "after a training that diverged. Use another copy."
            )


def check_complete(name: str, incomplete: Iterable[str], loaded: LoadedModel) -> None:
    """Refuse weights that transformers has filled with random numbers.

    Args:
        name: the model in messages, as `FIELD=VALUE`.
        incomplete: missing or mismatched weights that must not be random.

    Raises:
        InputError: `incomplete` is not empty. It names the first weight and the likely cause.
    """
    names = sorted(incomplete)
    if not names:
        return
    listed = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    problem = "lack" if names[0] in loaded.missing else "have another shape for"
    raise InputError(f"{name}: its weights {problem} {listed}. {_remedy(names, loaded)}")


def _remedy(names: list[str], loaded: LoadedModel) -> str:
    if 0 in loaded.mismatched.get(names[0], ()):
        return (
            "The file has empty tensors, as DeepSpeed ZeRO-3 saves them. Gather the shards "
            "before saving (zero_to_fp32.py)."
        )
    wrapper = next((key for key in _WRAPPER_KEYS if key in loaded.unused), None)
    if wrapper:
        return (
            f"The file is a training checkpoint with the weights under {wrapper!r}. Load it into "
            "the model and call save_pretrained."
        )
    key, prefix = _prefixed(names, loaded)
    if prefix:
        return (
            f"The file has {key}: its names carry the prefix {prefix!r}. Save the model "
            "that is inside the wrapper, e.g. model.module.save_pretrained(...)."
        )
    example = f" (the file has {loaded.unused[0]})" if loaded.unused else ""
    return f"Check that config.json and the weights belong together{example}."


def _prefixed(names: list[str], loaded: LoadedModel) -> tuple[str, str]:
    """Return a weight of the file that has a missing name after a prefix, and the prefix."""
    for name in names:
        for tail in (f".{name}", f".{name.removeprefix(loaded.encoder_prefix)}"):
            key = next((key for key in loaded.unused if key.endswith(tail)), None)
            if key is not None:
                return key, key.removesuffix(tail) + "."
    return "", ""


def unused_note(loaded: LoadedModel) -> str | None:
    """Return a line on ignored weights that the author of the model may have used."""
    unused = [key for key in loaded.unused if not any(word in key for word in _HARMLESS)]
    if not unused:
        return None
    more = f" and {len(unused) - _MAX_LISTED} more" if len(unused) > _MAX_LISTED else ""
    return (
        f"weights that {type(loaded.model).__name__} has no place for are ignored: "
        f"{', '.join(unused[:_MAX_LISTED])}{more}"
    )
