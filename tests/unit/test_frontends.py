"""Hugging Face `Trainer` and Lightning in place of the native loop: the same model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from finsent.errors import InputError
from finsent.training.config import TrainConfig
from finsent.training.frontends import trainer_of
from tests.unit.loop_bench import Bench, distance, weights

pytestmark = pytest.mark.usefixtures("one_thread")
OTHERS = ["transformers", "lightning"]


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Bench:
    return Bench(tiny, tmp_path)


@pytest.mark.parametrize("trainer", OTHERS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"schedule": "cosine", "label_smoothing": 0.1, "class_weights": "balanced"},
        {"layer_decay": 0.5, "ema_decay": 0.9, "batch_tokens": 256},
        {"lora_rank": 4, "max_grad_norm": 0.05},
        {"gradient_checkpointing": True},
    ],
    ids=["plain", "loss", "layers", "adapters", "memory"],
)
def test_same_model_as_native(bench: Bench, trainer: str, settings: dict[str, Any]) -> None:
    native, other = bench.run(**settings), bench.run(trainer=trainer, **settings)
    assert distance(weights(native.last), weights(other.last)) < 1e-5
    for mine, theirs in zip(native.metrics, other.metrics, strict=True):
        for key in ("macro_f1", "validation_confusion", "train_rows", "epoch", "padding_share"):
            assert mine[key] == theirs[key], key
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], abs=1e-5)
    told = [[line["step"] for line in run.lines] for run in (native, other)]
    assert told[0] == told[1]


@pytest.mark.parametrize("trainer", OTHERS)
def test_half_precision(bench: Bench, trainer: str) -> None:
    """Gradients are summed in another order for their norm, and bf16 has 8 bits."""
    native, other = bench.run(precision="bf16"), bench.run(trainer=trainer, precision="bf16")
    full = bench.run(trainer=trainer)
    assert distance(weights(native.last), weights(other.last)) < 1e-2
    assert distance(weights(full.last), weights(other.last)) > 1e-4
    losses = [run.metrics[-1]["train_loss"] for run in (native, other)]
    assert losses[0] == pytest.approx(losses[1], abs=0.01)


@pytest.mark.parametrize("trainer", OTHERS)
def test_goes_on_in_mid_epoch_also_where_native_stopped(bench: Bench, trainer: str) -> None:
    settings = {"checkpoint_every_steps": 5}
    name = "checkpoint_step_00000015"
    whole = bench.run(**settings)  # type: ignore[arg-type]
    stopped = bench.run(stop_after=name, trainer=trainer, **settings)  # type: ignore[arg-type]
    for own in (trainer, "native"):
        resumed = bench.run(resume=stopped.folder / name, trainer=own, **settings)  # type: ignore[arg-type]
        assert distance(weights(whole.last), weights(resumed.last)) < 1e-5
        assert resumed.begun == 15


@pytest.mark.parametrize("trainer", OTHERS)
def test_patience_and_a_finished_run(bench: Bench, trainer: str) -> None:
    run = bench.run(trainer=trainer, epochs=30, patience=1, learning_rate=1e-6)
    assert len(run.metrics) == 2
    assert "macro-F1 has not risen" in run.notes[0]
    again = bench.run(resume=run.last, trainer=trainer, epochs=2)
    assert again.metrics == []


@pytest.mark.parametrize(
    ("settings", "package", "extra"),
    [
        ({"trainer": "transformers"}, "accelerate", "transformers"),
        ({"trainer": "lightning"}, "lightning", "lightning"),
    ],
)
def test_missing_package_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], package: str, extra: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    with pytest.raises(InputError) as caught:
        trainer_of(TrainConfig.model_validate(settings))
    assert f"needs the package {package}; run pip install 'finsent[{extra}]'" in str(caught.value)


@pytest.mark.parametrize("trainer", OTHERS)
@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"accumulation_steps": 2}, "set train.accumulation_steps=1"),
        ({"unfreeze_epochs": 1.0}, "set train.unfreeze_epochs=0.0"),
        ({"compile": True}, "set train.compile=false"),
        ({"precision": "fp16"}, "set train.precision=bf16"),
        ({"num_workers": [1, 2]}, "set train.num_workers=2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_it_cannot_do_is_refused(trainer: str, settings: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        trainer_of(TrainConfig.model_validate({"trainer": trainer, **settings}))
    assert remedy in str(caught.value)
    assert f"train.trainer='{trainer}' cannot" in str(caught.value)
