"""Tiny classifiers with other architectures and labels, like those of a hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

_SHAPE: dict[str, Any] = {
    "vocab_size": 2000,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
_RELATIVE = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"max_position_embeddings": 514},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "deberta-v2": {**_RELATIVE, "position_buckets": 16, "norm_rel_ebd": "layer_norm"},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "mpnet": {"max_position_embeddings": 514},
    "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
}
OWN = ("negative", "neutral", "positive")


def classifier(
    kind: str = "bert", labels: Sequence[str] = OWN, seed: int = 3, **shape: Any
) -> PreTrainedModel:
    """Return a classifier whose answers differ between texts."""
    ids = dict(enumerate(labels))
    options = {**_SHAPE, **ARCHITECTURES.get(kind, {}), **shape}
    config = AutoConfig.for_model(
        kind, **options, id2label=ids, label2id={name: i for i, name in ids.items()}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(12)
    return model


def encoder(kind: str = "bert", **shape: Any) -> PreTrainedModel:
    """Return an encoder without a head."""
    options = {**_SHAPE, **ARCHITECTURES.get(kind, {}), **shape}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModel.from_config(AutoConfig.for_model(kind, **options))
    return model


def saved(
    model: PreTrainedModel,
    out: Path,
    tiny: Path,
    *,
    shard: str = "50GB",
    pickled: bool = False,
    weights: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a model with the tiny BERT's tokenizer.

    Args:
        shard: maximum size of a weights' file.
        pickled: whether to write a `.bin`.
        weights: replace the weights of the model.
    """
    state = model.state_dict() if weights is None else weights
    if pickled or weights is not None:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(out)
        if pickled:
            torch.save(state, out / "pytorch_model.bin")
        else:
            from safetensors.torch import save_file

            save_file({k: v.clone() for k, v in state.items()}, out / "model.safetensors")
    else:
        model.save_pretrained(out, max_shard_size=shard)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny / name, out / name)
    return out


def edit_json(file: Path, **changed: Any) -> None:
    """Change keys of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8")) | changed
    file.write_text(json.dumps(content), encoding="utf-8")


def snapshot(cache: Path, organisation: str, name: str, tiny: Path) -> Path:
    """Write a model into a hub cache, and return the directory of the snapshot."""
    repository = cache / f"models--{organisation}--{name}"
    commit = "0123456789abcdef" * 2 + "01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(tiny, repository / "snapshots" / commit)
    return repository / "snapshots" / commit
