"""Low-rank adapters: trained weights, saved weights, and resume."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from finsent.errors import InputError
from finsent.modeling.backbone import Backbone
from finsent.modeling.classifier import load_classifier
from finsent.modeling.provenance import Provenance
from finsent.training.checkpoint import find_damage
from finsent.training.config import TrainConfig
from finsent.training.lora import trainable_weights
from finsent.training.loss import forward
from finsent.training.model import build_model
from finsent.training.task import Task
from tests.unit.loop_bench import Bench, distance, initial, weights

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.cost(1, "trains a tiny model")]
RANK = 4


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Bench:
    return Bench(tiny, tmp_path)


def model_of(tiny: Path, **settings: object) -> PreTrainedModel:
    config = TrainConfig.model_validate({"learning_rate": 1e-3, **settings})
    return build_model(
        Task(config, Backbone("tiny", str(tiny)), Provenance(max_length=64)), torch.device("cpu")
    )


def test_few_weights_are_trained(tiny: Path) -> None:
    adapted = model_of(tiny, lora_rank=RANK)
    names = trainable_weights(adapted)
    heads = {name for name in names if ".lora_" not in name}
    assert heads == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }
    adapters = sum(tensor.numel() for name, tensor in names.items() if name not in heads)
    # Of two layers: four products of 32 x 32, one of 32 x 64, one of 64 x 32.
    assert adapters == 2 * RANK * (4 * (32 + 32) + 2 * (32 + 64))
    everything = sum(p.numel() for p in model_of(tiny).parameters())
    assert sum(tensor.numel() for tensor in names.values()) < everything / 8


def test_saved_weights_are_merged_and_are_the_validated_ones(bench: Bench) -> None:
    run = bench.run(lora_rank=RANK, epochs=6, learning_rate=1e-2)
    saved, before = weights(run.last), initial(bench)
    assert saved.keys() == before.keys()  # as of a model without adapters
    for name, tensor in saved.items():
        change = tensor - before[name]
        if "encoder.layer" in name and name.endswith("dense.weight"):
            assert 1 <= int(torch.linalg.matrix_rank(change, rtol=1e-3)) <= RANK
        elif "encoder.layer" in name or "embed" in name:
            if name.endswith(("query.weight", "key.weight", "value.weight")):
                continue
            assert float(change.abs().max()) == 0, name
    model = load_classifier(run.last / "model")
    with torch.no_grad():
        batch = bench.validation_rows.batch(np.arange(len(bench.validation_rows)))
        logits = forward(model, batch, torch.device("cpu"))
        loss = float(functional.cross_entropy(logits, batch.labels))
    assert loss == pytest.approx(run.metrics[-1].validation_loss, abs=1e-5)
    assert run.metrics[-1].train_loss < run.metrics[0].train_loss


def test_run_resumed_in_mid_epoch_equals_an_uninterrupted_one(bench: Bench) -> None:
    settings = {"lora_rank": RANK, "lora_dropout": 0.1, "checkpoint_every_steps": 5}
    name = "checkpoint_step_00000015"
    uninterrupted = bench.run(**settings)  # type: ignore[arg-type]
    stopped = bench.run(stop_after=name, **settings)  # type: ignore[arg-type]
    assert find_damage(stopped.folder / name) is None
    resumed = bench.run(resume=stopped.folder / name, **settings)  # type: ignore[arg-type]
    assert distance(weights(uninterrupted.last), weights(resumed.last)) == 0


@pytest.mark.parametrize(
    "settings",
    [{"layer_decay": 0.5}, {"unfreeze_epochs": 1.0}, {"lora_alpha": 64.0}, {"lora_dropout": 0.5}],
)
def test_settings_reach_adapters(bench: Bench, settings: dict[str, float]) -> None:
    plain = bench.run(lora_rank=RANK, epochs=1)
    changed = bench.run(lora_rank=RANK, epochs=1, **settings)  # type: ignore[arg-type]
    assert distance(weights(plain.last), weights(changed.last)) > 1e-6


def test_averaged_weights_are_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match=r"train.ema_decay=0.99: not supported with"):
        model_of(tiny, lora_rank=RANK, ema_decay=0.99)


def test_missing_package_is_named_with_the_remedy(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "peft" else find_spec(name)
    )
    with pytest.raises(InputError, match=r"lora_rank=4: needs .* pip install 'finsent\[lora\]'"):
        model_of(tiny, lora_rank=RANK)
