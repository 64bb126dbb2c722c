"""The sequence classifier and its directory: Hugging Face layout plus `provenance.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from finsent.errors import InputError, one_line
from finsent.files import write_json
from finsent.labels import ID2LABEL, LABEL2ID, LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.head import output_layer, renew, use_own_labels
from finsent.modeling.label_map import ABSENT_LOGIT, other_ids
from finsent.modeling.layout import PROVENANCE, REMEDY, check_model_dir
from finsent.modeling.reading import check_reading
from finsent.modeling.suitability import check_answers, check_length, check_tokens
from finsent.modeling.tokenizer import read_tokenizer, save_tokenizer
from finsent.modeling.weights import (
    Loaded,
    check_complete,
    load_weights,
    read_config,
    unused_note,
)


def load_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerFast:
    """Return the fast tokenizer of a backbone or of a model's directory; see `read_tokenizer`.

    Raises:
        InputError: there is only a slow one.
    """
    return read_tokenizer(source, revision).tokenizer


# What backbones' configs call their dropout: of hidden states, of attention, before the head.
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",  # BERT, RoBERTa
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",  # DistilBERT
    "pooler_dropout",
    "cls_dropout",
    "mlp_dropout",
    "embedding_dropout",  # DeBERTa, ModernBERT
    "classifier_dropout_prob",
    "summary_last_dropout",  # ALBERT, XLNet
)


def new_classifier(backbone: Backbone, seed: int, dropout: float | None = None) -> PreTrainedModel:
    """Return the backbone with a classification head for `LABELS`; see `begin_classifier`."""
    return begin_classifier(backbone, seed, dropout)[0]


def begin_classifier(
    backbone: Backbone, seed: int, dropout: float | None = None
) -> tuple[PreTrainedModel, list[str]]:
    """Load a backbone with a classification head for `LABELS`, seeded where the head is new.

    A head that knows our labels is kept, in our order; any other is replaced.

    Args:
        dropout: in place of every dropout that the backbone's config names; None: as it is there.

    Returns:
        The model, and lines on what was replaced, reordered or ignored.

    Raises:
        InputError: the config names no dropout, or the encoder's weights are not all there.
    """
    field = f"model.backbone={backbone.name!r}"
    config = read_config(backbone.source, field, backbone.revision)
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    contradiction = other_ids(config.id2label, config.label2id)
    changed: dict[str, float] = {}
    if dropout is not None:
        changed = {name: dropout for name in _DROPOUTS if hasattr(config, name)}
        if not changed:
            raise InputError(
                f"train.dropout={dropout}: the config of {backbone.name} names no dropout; set "
                "train.dropout=null"
            )
    torch.manual_seed(seed)
    loaded = load_weights(
        backbone.source,
        field,
        pickled=backbone.is_pickled,
        revision=backbone.revision,
        id2label=ID2LABEL,
        label2id=LABEL2ID,
        problem_type="single_label_classification",  # pipelines then answer by softmax
        ignore_mismatched_sizes=True,  # a head for another number of labels
        **changed,
    )
    random = [*loaded.missing, *loaded.mismatched]
    encoder = [key for key in random if key.startswith(loaded.encoder) and ".pooler." not in key]
    check_complete(field, encoder, loaded)
    notes = [
        _head_note(loaded, names, contradiction, field),
        _pooler_note(loaded),
        unused_note(loaded),
    ]
    return loaded.model, [note for note in notes if note]


def _head_note(
    loaded: Loaded, names: tuple[str, ...], contradiction: str | None, field: str
) -> str | None:
    """Fit the head to `LABELS`, and return a line on what that took.

    Args:
        names: the labels of the backbone's own config.
        contradiction: what else that config has on their order.

    Raises:
        InputError: the backbone has an output layer, but lacks other weights of the head.
    """
    layer, shown = output_layer(loaded.model), ", ".join(names)
    parameters = dict(loaded.model.named_parameters())
    head = {key for key in parameters if not key.startswith(loaded.encoder)}
    if head & {*loaded.mismatched}:
        return f"the head's output layer is new: the backbone's has {len(names)} labels ({shown})"
    output = {
        key for key in head if layer and any(parameters[key] is p for p in layer.parameters())
    }
    if layer is None or output <= {*loaded.missing}:
        return None  # an encoder that brings no head
    check_complete(field, head & {*loaded.missing}, loaded)
    wanted = [name.casefold() for name in names]
    std = getattr(loaded.model.config, "initializer_range", 0.02)
    if sorted(wanted) != sorted(LABELS):
        renew(layer, std)
        return f"the head's output layer is new: the backbone's labels are {shown}"
    if contradiction:
        renew(layer, std)
        return f"the head's output layer is new: the backbone contradicts itself ({contradiction})"
    if layer.bias is not None and bool((layer.bias <= ABSENT_LOGIT / 2).any()):
        renew(layer, std)
        return "the head's output layer is new: the backbone's never answers some of the labels"
    if wanted != list(LABELS):
        use_own_labels(loaded.model, [wanted.index(label) for label in LABELS])
        return f"the head is kept, its labels reordered from {shown} to {', '.join(LABELS)}"
    return None


def _pooler_note(loaded: Loaded) -> str | None:
    new = any(".pooler." in key for key in loaded.missing)
    return "the encoder's pooler is new: the backbone has none" if new else None


def weight_bytes(backbone: Backbone) -> int:
    """Return the bytes of a backbone's classifier in fp32, without reading its weights.

    Its files may hold the weights twice, those of another head, or in half precision.
    """
    config = read_config(backbone.source, f"model.backbone={backbone.name!r}", backbone.revision)
    config.id2label = ID2LABEL
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    count: int = sum(parameter.numel() for parameter in model.parameters())
    return count * torch.float32.itemsize


def inspect_backbone(backbone: Backbone, max_length: int) -> list[str]:
    """Find out before a training starts whether a backbone can be trained.

    Returns:
        Lines on what a user should know about the tokenizer and the head.

    Raises:
        InputError: the tokenizer, the weights or the longest input do not suit the model.
    """
    field = f"model.backbone={backbone.name!r}"
    config = read_config(backbone.source, field, backbone.revision)
    check_length(config, max_length, backbone.name, "model.max_length")
    read = read_tokenizer(backbone.source, backbone.revision, field)
    check_tokens(config, read.tokenizer, field)
    reading = check_reading(read.tokenizer, field)
    with torch.random.fork_rng(devices=[]):
        model, notes = begin_classifier(backbone, 0)
    check_answers(model, read.tokenizer, max_length, field)
    return [f"{field}: {note}" for note in [*read.notes, *reading, *notes]]


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
    save_tokenizer(tokenizer, out, provenance["max_length"])
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
            path,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        problem = one_line(error)
        raise InputError(
            f"{str(path)!r}: model.safetensors cannot be loaded ({problem}); {REMEDY}"
        ) from None
    missing = sorted(loaded["missing_keys"])
    if missing:  # transformers would make up the weights that are not there
        raise InputError(f"{str(path)!r}: model.safetensors lacks {missing[0]}; {REMEDY}")
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model
