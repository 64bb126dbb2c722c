"""Loading of weights: tensors only, complete, and no random ones in silence."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from finsent.errors import InputError, one_line

_UNUSED_SHOWN = 3
_PLAIN_ATTENTION = ("eager", "sdpa")
# What a config may have set for its author's programs: other outputs, or other ways to the same.
_NEUTRAL = {
    "return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "chunk_size_feed_forward": 0,
}
_WRAPPED = ("state_dict", "model_state_dict", "module", "model")  # where trainers keep weights
# Buffers that old versions saved, and heads of pre-training: no part of a classifier's answers.
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
class Loaded:
    """A model, and how its weights matched those of the files."""

    model: PreTrainedModel
    missing: list[str]  # weights that the files lack: random ones
    mismatched: dict[
        str, tuple[int, ...]
    ]  # weights of another shape: random ones; the files' shape
    unused: list[str]  # weights of the files that the model has no place for

    @property
    def encoder(self) -> str:
        """The prefix of the encoder's weights."""
        return f"{self.model.base_model_prefix}."


def read_config(source: str, name: str, revision: str | None = None) -> Any:
    """Return a model's config, of transformers. Code that comes with a model never runs.

    Args:
        source: a local directory or a hub id.
        name: of the model, for messages: `FIELD=VALUE`.

    Raises:
        InputError: config.json is missing, damaged or of an unknown architecture.
    """
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # each architecture checks its settings in its own way
        problem = one_line(error)
        raise InputError(
            f"{name}: its config.json cannot be used ({problem}); correct it, or use a model whose "
            "architecture transformers has"
        ) from None
    quantized = getattr(config, "quantization_config", None)
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise InputError(
            f"{name}: its weights are quantized ({method}, quantization_config in config.json); "
            "use a copy in fp32, fp16 or bf16: exports are quantized here, behind the parity gate"
        )
    return config


def neutral_options(config: Any) -> dict[str, Any]:
    """Return options of `from_pretrained` under which a model computes its plain logits.

    Args:
        config: of transformers.
    """
    options: dict[str, Any] = {
        key: value for key, value in _NEUTRAL.items() if hasattr(config, key)
    }
    attention = getattr(config, "_attn_implementation", None)
    if attention is not None and attention not in _PLAIN_ATTENTION:
        # Flash attention needs a GPU and a package. Files have the setting under either name.
        options |= dict.fromkeys(("attn_implementation", "_attn_implementation"), "eager")
    return options


def load_weights(
    source: str, name: str, *, pickled: bool, revision: str | None = None, **options: Any
) -> Loaded:
    """Load a classifier in fp32. Pickle files are read by torch's loader of tensors alone.

    Args:
        source: a local directory or a hub id.
        name: of the model, for messages: `FIELD=VALUE`.
        pickled: whether the weights are in a `.bin` file.
        options: of `from_pretrained`.

    Raises:
        InputError: the files are damaged, hold more than tensors, or are of an unknown
            architecture.
    """
    neutral = neutral_options(read_config(source, name, revision))
    transformers_logging.set_verbosity_error()  # what is missing is reported below
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            use_safetensors=not pickled,
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
            "run as it is loaded. Use a copy with safetensors weights"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # safetensors, torch and transformers share no error type
        problem = one_line(error)
        raise InputError(
            f"{name}: its weights cannot be loaded ({problem}); the files are damaged or do not "
            "fit config.json: download them again, or use another copy"
        ) from None
    assert isinstance(model, PreTrainedModel)
    # Code of the source is neither run nor kept, so nothing may refer to it.
    model.config.__dict__.pop("auto_map", None)
    _check_finite(model, name)
    return Loaded(
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
                "after a training that diverged; use another copy"
            )


def check_complete(name: str, lacking: Iterable[str], loaded: Loaded) -> None:
    """Refuse weights that transformers would fill with random numbers.

    Args:
        lacking: missing or mismatched weights that may not be random.

    Raises:
        InputError: there are some; it names the first ones and the likely cause.
    """
    names = sorted(lacking)
    if not names:
        return
    count = f"{names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    problem = "lack" if names[0] in loaded.missing else "have another shape for"
    raise InputError(f"{name}: its weights {problem} {count}; {_remedy(names, loaded)}")


def _remedy(names: list[str], loaded: Loaded) -> str:
    if 0 in loaded.mismatched.get(names[0], ()):
        return (
            "those of the file are empty, as DeepSpeed ZeRO-3 leaves them: gather the shards "
            "before saving (zero_to_fp32.py)"
        )
    wrapped = next((key for key in _WRAPPED if key in loaded.unused), None)
    if wrapped:
        return (
            f"the file is a training checkpoint with the weights under {wrapped!r}: load it into "
            "the model and call save_pretrained"
        )
    key, prefix = _prefixed(names, loaded)
    if prefix:
        return (
            f"the file has {key}: its names carry the prefix {prefix!r}. Save the model "
            "that is inside the wrapper, e.g. model.module.save_pretrained(...)"
        )
    others = f" (the file has {loaded.unused[0]})" if loaded.unused else ""
    return f"check that config.json and the weights belong together{others}"


def _prefixed(names: list[str], loaded: Loaded) -> tuple[str, str]:
    """Return a weight of the file that is a missing one behind a prefix, and the prefix."""
    for name in names:
        for tail in (f".{name}", f".{name.removeprefix(loaded.encoder)}"):
            key = next((key for key in loaded.unused if key.endswith(tail)), None)
            if key is not None:
                return key, key.removesuffix(tail) + "."
    return "", ""


def unused_note(loaded: Loaded) -> str | None:
    """Return a line on weights that change nothing, though their author may have used them."""
    unused = [key for key in loaded.unused if not any(word in key for word in _HARMLESS)]
    if not unused:
        return None
    more = f" and {len(unused) - _UNUSED_SHOWN} more" if len(unused) > _UNUSED_SHOWN else ""
    return (
        f"weights that {type(loaded.model).__name__} has no place for are ignored: "
        f"{', '.join(unused[:_UNUSED_SHOWN])}{more}"
    )
