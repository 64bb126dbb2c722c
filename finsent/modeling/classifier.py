"""The sequence classifier and its directory: Hugging Face layout plus `provenance.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from finsent.errors import InputError
from finsent.files import write_json
from finsent.labels import ID2LABEL, LABEL2ID
from finsent.modeling.backbone import Backbone
from finsent.modeling.layout import PROVENANCE, REMEDY, check_model_dir


def load_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a backbone or a model's directory.

    Raises:
        InputError: there is only a slow one.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, use_fast=True)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"{source!r}: has no fast tokenizer (tokenizer.json); add one")
    return tokenizer


# What backbones' configs call their dropout: of hidden states, of attention, before the head.
_DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",  # BERT, RoBERTa
    "dropout", "attention_dropout", "seq_classif_dropout",  # DistilBERT
    "pooler_dropout", "cls_dropout", "mlp_dropout", "embedding_dropout",  # DeBERTa, ModernBERT
    "classifier_dropout_prob", "summary_last_dropout",  # ALBERT, XLNet
)  # fmt: skip


def new_classifier(backbone: Backbone, seed: int, dropout: float | None = None) -> PreTrainedModel:
    """The backbone with a fresh classification head for `LABELS`, seeded; safetensors only.

    Args:
        dropout: in place of every dropout that the backbone's config names; None: as it is there.

    Raises:
        InputError: its config names none.
    """
    transformers_logging.set_verbosity_error()  # the head is new: no warning about that
    transformers_logging.disable_progress_bar()
    changed: dict[str, float] = {}
    if dropout is not None:
        config = AutoConfig.from_pretrained(backbone.source, revision=backbone.revision)
        changed = {name: dropout for name in _DROPOUTS if hasattr(config, name)}
        if not changed:
            raise InputError(
                f"train.dropout={dropout}: the config of {backbone.name} names no dropout; set "
                "train.dropout=null"
            )
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        backbone.source,
        revision=backbone.revision,
        id2label=ID2LABEL,
        label2id=LABEL2ID,
        use_safetensors=True,
        dtype=torch.float32,
        **changed,
    )
    return model


def save_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    provenance: dict[str, Any],
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write weights, config with labels, tokenizer, and where the model came from.

    Args:
        provenance: JSON-able; `max_length` (tokens) is required, as inference depends on it.
        weights: in place of the model's own.
    """
    model.save_pretrained(out, state_dict=weights)
    tokenizer.save_pretrained(out)
    write_json(out / PROVENANCE, provenance)


def load_classifier(path: Path) -> PreTrainedModel:
    """Load a trained classifier in evaluation mode. Reads safetensors only, never pickle.

    Raises:
        InputError: the directory is incomplete or has other labels.
    """
    check_model_dir(path)
    transformers_logging.disable_progress_bar()
    try:
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            path, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        problem = str(error).strip().splitlines()[0][:200]
        raise InputError(
            f"{str(path)!r}: model.safetensors cannot be loaded ({problem}); {REMEDY}"
        ) from None
    missing = sorted(loaded["missing_keys"])
    if missing:  # transformers would make up the weights that are not there
        raise InputError(f"{str(path)!r}: model.safetensors lacks {missing[0]}; {REMEDY}")
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model
