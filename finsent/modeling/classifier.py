"""Create, inspect, save and load the sequence classifier."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from finsent.errors import InputError, one_line
from finsent.labels import ID2LABEL, LABEL2ID, LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.classification_head import output_layer, reinitialize, reorder_labels
from finsent.modeling.compatibility import check_length, check_padding, check_tokens
from finsent.modeling.label_map import ABSENT_LOGIT, contradicting_ids
from finsent.modeling.model_dir import PROVENANCE, REMEDY, check_model_dir
from finsent.modeling.provenance import Provenance
from finsent.modeling.tokenizer import read_tokenizer, save_tokenizer
from finsent.modeling.tokenizer_checks import check_vocabulary
from finsent.modeling.weights import (
    LoadedModel,
    check_complete,
    load_weights,
    read_config,
    unused_note,
)

# Names of dropout rates in the configs of backbones: of hidden states, attention, and the head.
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


def load_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerFast:
    """Return the fast tokenizer of a backbone or of a model's directory; see `read_tokenizer`.

    Raises:
        InputError: the source has no fast tokenizer.
    """
    return read_tokenizer(source, revision).tokenizer


def new_classifier(backbone: Backbone, seed: int, dropout: float | None = None) -> PreTrainedModel:
    """Return the backbone with a classification head for `LABELS`; see `init_classifier`."""
    return init_classifier(backbone, seed, dropout)[0]


def init_classifier(
    backbone: Backbone, seed: int, dropout: float | None = None
) -> tuple[PreTrainedModel, list[str]]:
    """Load a backbone with a classification head for `LABELS`, new weights drawn from a seed.

    A head with finsent's labels is kept and reordered; any other head is replaced.

    Args:
        dropout: replaces every dropout rate in the backbone's config; None: the config's rates.

    Returns:
        The model, and lines on what was replaced, reordered or ignored.

    Raises:
        InputError: the config names no dropout, or weights of the encoder are missing.
    """
    field = f"model.backbone={backbone.name!r}"
    config = read_config(backbone.source, field, backbone.revision)
    label_names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    contradiction = contradicting_ids(config.id2label, config.label2id)
    rates: dict[str, float] = {}
    if dropout is not None:
        rates = {name: dropout for name in _DROPOUTS if hasattr(config, name)}
        if not rates:
            raise InputError(
                f"train.dropout={dropout}: the config of {backbone.name} names no dropout. Set "
                "train.dropout=null."
            )
    torch.manual_seed(seed)
    loaded = load_weights(
        backbone.source,
        field,
        is_pickled=backbone.is_pickled,
        revision=backbone.revision,
        id2label=ID2LABEL,
        label2id=LABEL2ID,
        problem_type="single_label_classification",  # pipelines then answer by softmax
        ignore_mismatched_sizes=True,  # a head for another number of labels
        **rates,
    )
    random_keys = [*loaded.missing, *loaded.mismatched]
    prefix = loaded.encoder_prefix
    encoder_keys = [key for key in random_keys if key.startswith(prefix) and ".pooler." not in key]
    check_complete(field, encoder_keys, loaded)
    notes = [
        _fit_head(loaded, label_names, contradiction, field),
        _pooler_note(loaded),
        unused_note(loaded),
    ]
    return loaded.model, [note for note in notes if note]


def _fit_head(
    loaded: LoadedModel, label_names: tuple[str, ...], contradiction: str | None, field: str
) -> str | None:
    """Fit the head to `LABELS`, and return a line on the change; None: nothing to report.

    Args:
        label_names: the labels in the backbone's own config.
        contradiction: labels whose order that config leaves open.

    Raises:
        InputError: the backbone has an output layer, but lacks other weights of the head.
    """
    layer, listed = output_layer(loaded.model), ", ".join(label_names)
    parameters = dict(loaded.model.named_parameters())
    head_keys = {key for key in parameters if not key.startswith(loaded.encoder_prefix)}
    if head_keys & {*loaded.mismatched}:
        count = len(label_names)
        return f"the head's output layer is new: the backbone's has {count} labels ({listed})"
    layer_ids = {id(parameter) for parameter in layer.parameters()} if layer else set()
    output_keys = {key for key in head_keys if id(parameters[key]) in layer_ids}
    if layer is None or output_keys <= {*loaded.missing}:
        return None  # an encoder without a head
    check_complete(field, head_keys & {*loaded.missing}, loaded)
    reason = _unusable_head(layer, label_names, contradiction)
    if reason:
        reinitialize(layer, getattr(loaded.model.config, "initializer_range", 0.02))
        return f"the head's output layer is new: {reason}"
    folded_names = [name.casefold() for name in label_names]
    if folded_names != list(LABELS):
        reorder_labels(loaded.model, [folded_names.index(label) for label in LABELS])
        return f"the head is kept, its labels reordered from {listed} to {', '.join(LABELS)}"
    return None


def _unusable_head(
    layer: torch.nn.Linear, label_names: tuple[str, ...], contradiction: str | None
) -> str | None:
    """Return why an output layer cannot answer `LABELS`; None: it can."""
    if sorted(name.casefold() for name in label_names) != sorted(LABELS):
        return f"the backbone's labels are {', '.join(label_names)}"
    if contradiction:
        return f"the backbone contradicts itself ({contradiction})"
    if layer.bias is not None and bool((layer.bias <= ABSENT_LOGIT / 2).any()):
        return "the backbone's never answers some of the labels"
    return None


def _pooler_note(loaded: LoadedModel) -> str | None:
    is_new = any(".pooler." in key for key in loaded.missing)
    return "the encoder's pooler is new: the backbone has none" if is_new else None


def weight_bytes(backbone: Backbone) -> int:
    """Return the size of a backbone's classifier in fp32, in bytes, without reading its weights.

    The size of the files differs: they may contain weights twice, another head, or half precision.
    """
    config = read_config(backbone.source, f"model.backbone={backbone.name!r}", backbone.revision)
    config.id2label = ID2LABEL
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    count: int = sum(parameter.numel() for parameter in model.parameters())
    return count * torch.float32.itemsize


def inspect_backbone(backbone: Backbone, max_length: int) -> list[str]:
    """Check before a training starts that a backbone can be trained.

    Returns:
        Lines for the user on the tokenizer and the head.

    Raises:
        InputError: the tokenizer, the weights or the longest input do not fit the model.
    """
    field = f"model.backbone={backbone.name!r}"
    config = read_config(backbone.source, field, backbone.revision)
    check_length(config, max_length, backbone.name, "model.max_length")
    loaded = read_tokenizer(backbone.source, backbone.revision, field)
    check_tokens(config, loaded.tokenizer, field)
    vocabulary_notes = check_vocabulary(loaded.tokenizer, field)
    with torch.random.fork_rng(devices=[]):
        model, head_notes = init_classifier(backbone, 0)
    check_padding(model, loaded.tokenizer, max_length, field)
    return [f"{field}: {note}" for note in [*loaded.notes, *vocabulary_notes, *head_notes]]


def save_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    provenance: Provenance,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write weights, config with labels, tokenizer and provenance.

    Args:
        weights: replace the model's own weights; None: the model's own.
    """
    model.save_pretrained(out, state_dict=weights)
    save_tokenizer(tokenizer, out, provenance.max_length)
    provenance.write(out / PROVENANCE)


def load_classifier(path: Path) -> PreTrainedModel:
    """Load a trained classifier in evaluation mode. Reads safetensors only, never pickle.

    Raises:
        InputError: the directory is incomplete or has other labels.
    """
    check_model_dir(path)
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        problem = one_line(error)
        raise InputError(
            f"{str(path)!r}: model.safetensors cannot be loaded ({problem}). {REMEDY}"
        ) from None
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise InputError(f"{str(path)!r}: model.safetensors lacks {missing[0]}. {REMEDY}")
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model
