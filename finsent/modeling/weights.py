"""Loading of weights: tensors only, complete, and no random ones in silence."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from finsent.errors import InputError

_UNUSED_SHOWN = 3
# Buffers that old versions saved, and heads of pre-training: no part of a classifier's answers.
_HARMLESS = (
    "position_ids", "token_type_ids", "cls.", "lm_head.", "vocab_", "mlm_", "decoder.",
    "predictions.", "pooler.",
)  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A model, and how its weights matched those of the files."""

    model: PreTrainedModel
    missing: list[str]  # weights that the files lack: random ones
    mismatched: list[str]  # weights of another shape: random ones
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
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name}: its config.json cannot be used ({problem}); use a model whose architecture "
            "transformers has"
        ) from None


def load_weights(source: str, name: str, *, pickled: bool, **options: Any) -> Loaded:
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
            **options,
        )
    except pickle.UnpicklingError:
        raise InputError(
            f"{name}: its .bin file holds code or objects next to tensors (a pickle), which could "
            "run as it is loaded. Use a copy with safetensors weights"
        ) from None
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, ImportError) as error:
        # ImportError: weights that are quantized by a library that is not installed.
        problem = " ".join(str(error).split())[:200]
        raise InputError(f"{name}: its weights cannot be loaded ({problem})") from None
    assert isinstance(model, PreTrainedModel)
    return Loaded(
        model,
        sorted(info["missing_keys"]),
        sorted(key for key, *_ in info["mismatched_keys"]),
        sorted(info["unexpected_keys"]),
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
    key, prefix = _prefixed(names, loaded)
    if prefix:
        remedy = (
            f"the file has {key}: its names carry the prefix {prefix!r}. Save the model "
            "that is inside the wrapper, e.g. model.module.save_pretrained(...)"
        )
    else:
        others = f" (the file has {loaded.unused[0]})" if loaded.unused else ""
        remedy = f"check that config.json and the weights belong together{others}"
    raise InputError(f"{name}: its weights {problem} {count}; {remedy}")


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
